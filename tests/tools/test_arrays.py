"""Input arrays: accepted types, rejected values, and columns that floats do not resolve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import afflow
from afflow._tools.arrays import cast, real_array

X = np.random.default_rng(0).normal(size=(50, 2))


class NAType:
    """A stand-in for the missing value of a table, such as that of pandas."""

    def __float__(self):
        raise TypeError("missing")


@pytest.mark.parametrize(
    "value",
    [
        X.astype(">f8"),
        X.astype(np.longdouble),
        X.astype(object),
        X.tolist(),
        [tuple(row) for row in X],
        jnp.asarray(X),
    ],
    ids=["big endian", "long double", "objects", "lists", "tuples", "jax"],
)
def test_real_arrays_of_every_kind_are_the_same(value):
    array = real_array("x", value)
    assert array.dtype.isnative
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, X)
    flow = afflow.made(2, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(flow.log_prob(value), flow.log_prob(X))
    np.testing.assert_array_equal(afflow.Standardize.from_data(value).mean[...], X.mean(0))


def test_lists_of_traced_numbers_are_arrays():
    flow = afflow.made(2, rngs=nnx.Rngs(0))
    found = jax.jit(lambda a, b: flow.log_prob([a, b]))(1.0, 2.0)
    np.testing.assert_allclose(found, flow.log_prob([1.0, 2.0]), rtol=1e-12)


def test_missing_entries_are_nan():
    array = real_array("x", np.array([[1.5, None], [NAType(), True]], object))
    np.testing.assert_array_equal(array, [[1.5, np.nan], [np.nan, 1]])


def test_nullable_columns_of_pandas_are_numbers():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"flag": pandas.array([True, None], "boolean")})
    frame["count"] = pandas.array([3, 4], "Int64")
    np.testing.assert_array_equal(real_array("x", frame), [[1.0, 3.0], [np.nan, 4.0]])
    frame["flag"] = [True, False]
    np.testing.assert_array_equal(real_array("x", frame), [[1.0, 3.0], [0.0, 4.0]])


def test_masked_entries_are_nan():
    masked = np.ma.array([[1.0], [999.0]], mask=[[False], [True]])
    np.testing.assert_array_equal(real_array("x", masked), [[1.0], [np.nan]])


def test_variables_are_their_arrays():
    flow = afflow.made(2, rngs=nnx.Rngs(0))
    gradient = jax.grad(lambda p: flow.log_prob(nnx.Param(p)))(jnp.ones(2))
    np.testing.assert_allclose(gradient, [-1, -1], rtol=1e-12)


def test_native_arrays_pass_as_they_are(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for value in (X, mapped, X.astype(np.float32), (X > 0), np.arange(3, dtype=np.uint8)):
        assert real_array("x", value) is value


@pytest.mark.parametrize(
    ("value", "mend"),
    [
        (X * 1j, "imaginary"),
        (jnp.asarray(X) * 1j, "imaginary"),
        (np.array([["a", "b"]]), "categories"),
        (np.array([["a", 1.0]], object), "categories"),
        (np.array([["1", "2"]], object), "categories"),
        (np.array([(1.0, 2.0)], [("u", float), ("v", float)]), "u, v"),
        (np.array(["2020-01-01"], "M8[D]"), "dates"),
        ([[1.0, 2.0], [3.0]], "one array"),
    ],
    ids=["complex", "complex jax", "text", "mixed", "digits", "structured", "dates", "ragged"],
)
def test_what_is_no_real_array_is_refused(value, mend):
    flow = afflow.made(2, rngs=nnx.Rngs(0))
    for use in (
        flow.log_prob,
        lambda x: afflow.fit(flow, x, key=jax.random.key(0), progress=False),
        lambda x: afflow.maf(2, data=x, rngs=nnx.Rngs(0)),
        afflow.distributions.MultivariateNormal.from_data,
    ):
        with pytest.raises(ValueError, match=mend):
            use(value)


def test_casts_keep_the_range():
    with jax.enable_x64(False):
        for value in (1e40, -1e40):
            with pytest.raises(ValueError, match="within the range of float32"):
                cast("x", np.array([1.0, value]))
        assert cast("x", np.array([1e-50]))[0] == 0
        with pytest.raises(ValueError, match="within the range of float32"):
            cast("x", np.array([1e-50]), is_scale=True)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("name", ["x", "context"])
def test_arguments_beyond_the_floats_are_refused(name):
    rows = {"x": X, "context": X[:, :1]}
    rows[name] = np.where(rows[name] > 1, 1e40, rows[name])
    options = {"key": jax.random.key(0), "progress": False}
    with jax.enable_x64(False):
        flow = afflow.made(2, context_dim=1, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match=f"{name} within the range of float32, got 1e\\+40"):
            flow.log_prob(**rows)
        with pytest.raises(ValueError, match=f"Expected finite {name}"):
            afflow.fit(flow, **rows, **options)
        if name == "context":
            with pytest.raises(ValueError, match="context within the range of float32"):
                flow.sample(jax.random.key(0), context=[[1e40]])
        assert flow.log_prob([np.inf, 0.0], [0.0]) == -np.inf
    double = afflow.made(2, context_dim=1, rngs=nnx.Rngs(0))
    assert np.isfinite(double.log_prob(**rows)).all()


def test_seconds_since_1980_need_columns():
    """Check that the error names the option that resolves times, and that the option does."""
    seconds = 1126259462.4 + 0.01 * X[:, :1]
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"columns=\[afflow.Real\(\), ...\] does it"):
            afflow.made(1, data=seconds, rngs=nnx.Rngs(0))
        flow = afflow.made(1, data=seconds, columns=[afflow.Real()], rngs=nnx.Rngs(0))
        found = flow.log_prob(seconds)
    expected = -0.5 * (np.square((X[:, 0] - X[:, 0].mean()) / X[:, 0].std()) + np.log(2 * np.pi))
    np.testing.assert_allclose(found, expected - np.log(0.01 * X[:, 0].std()), atol=1e-3)


@pytest.mark.parametrize("size", [1e-38, 1e-40])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: afflow.made(2, data=size * X, rngs=nnx.Rngs(0)),
        lambda size: afflow.made(2, data=size * X, columns=[afflow.Real()] * 2, rngs=nnx.Rngs(0)),
        lambda size: afflow.made(2, context_dim=2, data=(X, size * X), rngs=nnx.Rngs(0)),
        lambda size: afflow.distributions.LocationScale(afflow.Normal(1), [0.0], [size]),
        lambda size: afflow.distributions.MultivariateNormal.from_data(size * X),
        lambda size: afflow.Uniform(1, 0.0, size),
        lambda size: afflow.sbi.rows.Summary(size * X, None),
    ],
    ids=["data", "columns", "context", "loc", "normal", "uniform", "summary"],
)
def test_scales_below_the_normal_numbers_are_refused(make, size):
    """Check scales that compiled programs would flush to zero; densities were NaN or infinite."""
    with jax.enable_x64(False), pytest.raises(ValueError, match="within the range of float32"):
        make(size)
    make(size)


@pytest.mark.parametrize("value", [0.1, 4.2, 1e-30, 1e300])
def test_constant_columns_are_refused(value):
    column = np.full((1000, 1), value)
    with pytest.raises(ValueError, match="drop constant columns"):
        afflow.Standardize.from_data(column)
    with pytest.raises(ValueError, match="drop constant"):
        afflow.distributions.MultivariateNormal.from_data(
            np.concatenate([column, X[:1].repeat(1000, 0)], 1)
        )


@pytest.mark.parametrize(
    ("location", "scale"), [(1126259462.4, 0.01), (2459000.5, 0.1)], ids=["GPS", "Julian"]
)
def test_a_deviation_that_floats_do_not_resolve_is_refused(location, scale):
    column = location + scale * X[:, :1]
    afflow.Standardize.from_data(column)  # resolved in float64
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match="subtract a location"):
            afflow.Standardize.from_data(column)
        afflow.Standardize.from_data(column - location)


def test_an_interval_that_floats_do_not_resolve_is_refused():
    with jax.enable_x64(False):
        for make in (
            lambda: afflow.bijectors.Interval([1126259400], [1126259530]),
            lambda: afflow.Uniform(1, 2459000.5, 2459000.6),
        ):
            with pytest.raises(ValueError, match="float32 resolves"):
                make()
    afflow.bijectors.Interval([1126259400], [1126259530])


def test_covariances_are_judged_in_their_own_units():
    rng = np.random.default_rng(1)
    for _ in range(9):
        c = rng.normal(size=100)
        with pytest.raises(ValueError, match="positive definite"):
            afflow.distributions.MultivariateNormal.from_data(np.stack([c, c], 1))
    with pytest.raises(ValueError, match="symmetric"):
        afflow.distributions.MultivariateNormal(np.zeros(2), 1e-10 * np.array([[1, 0.5], [0, 1]]))
    wide = afflow.distributions.MultivariateNormal.from_data(X * [2e19, 1e-25])
    unit = afflow.distributions.MultivariateNormal.from_data(X)
    for z in X[:3]:
        expected = unit.log_prob(jnp.asarray(z)) - np.log(2e19) - np.log(1e-25)
        found = wide.log_prob(jnp.asarray(z * [2e19, 1e-25]))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_nearly_dependent_columns_keep_their_density_in_float32():
    rng = np.random.default_rng(2)
    with jax.enable_x64(False):
        for _ in range(5):
            c = rng.normal(size=1000)
            x = np.stack([c, c + 1e-4 * rng.normal(size=1000)], 1)
            base = afflow.distributions.MultivariateNormal.from_data(x)
            log_prob = jax.jit(jax.vmap(base.log_prob))(x.astype(np.float32)).mean()
            log_det = np.linalg.slogdet(np.cov(x, rowvar=False, bias=True))[1]
            exact = -(2 * np.log(2 * np.pi) + log_det + 2) / 2
            np.testing.assert_allclose(log_prob, exact, atol=1e-3)


def test_integers_do_not_wrap_around():
    with jax.enable_x64(False):
        model = afflow.nade(3, hidden=4, rngs=nnx.Rngs(0))
        assert model.log_prob(np.array([2**31 - 1, 0, 1])) == -jnp.inf
        for far in (2**32, -(2**31) - 1):
            with pytest.raises(ValueError, match="within the range of int32"):
                model.log_prob(np.array([far, 0, 1]))
