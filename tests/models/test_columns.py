"""Tables in their own units, against known densities."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats as st
from flax import nnx
from registry import randomize

import afflow

KEY = jax.random.key(0)
START = 1126259462.4  # seconds of GPS time: its float32 neighbours are 128 s apart
KINDS = {
    "mass": afflow.Above(0.0),
    "share": afflow.Between(0.1, 0.3),
    "shots": afflow.Whole(low=0),
    "die": afflow.Whole(1, 6),
    "band": afflow.Categories(["g", "r", "i"]),
}


def table(n=300, seed=0):
    """Return `n` rows of independent columns: time, mass, share, shots, die, band."""
    rng = np.random.default_rng(seed)
    return {
        "time": START + 0.01 * rng.normal(size=n),
        "mass": 125 + 10 * rng.normal(size=n),
        "share": 0.1 + 0.2 * rng.beta(2, 3, n),
        "shots": rng.poisson(3, n),
        "die": rng.integers(1, 7, n),
        "band": np.array(["g", "r", "i"])[rng.choice(3, n, p=[0.5, 0.3, 0.2])],
    }


def small(rows, **options):
    """Return a small flow over the columns of `rows`."""
    return afflow.made(
        len(rows), columns=KINDS, data=rows, hidden=(8,), rngs=nnx.Rngs(0), **options
    )


def test_start_is_near_the_truth():
    """Check the density of an untrained flow: a normal for each transformed column."""
    rows = table(4000)
    nats = np.mean(small(rows).log_prob(rows))
    truth = sum(
        (
            st.norm(START, 0.01).logpdf(rows["time"]),
            st.norm(125, 10).logpdf(rows["mass"]),
            st.beta(2, 3, 0.1, 0.2).logpdf(rows["share"]),
            st.poisson(3).logpmf(rows["shots"]),
            np.log(1 / 6),
            np.log([{"g": 0.5, "r": 0.3, "i": 0.2}[band] for band in rows["band"]]),
        )
    ).mean()
    assert truth - 0.6 < nats < truth + 0.02


def test_round_trip():
    """Check that samples have densities, and the columns' types, ranges and names."""
    flow = randomize(small(table()), 0.2)
    x, log_prob = flow.sample_and_log_prob(KEY, 200)
    assert list(x) == ["time", "mass", "share", "shots", "die", "band"]
    np.testing.assert_allclose(log_prob, flow.log_prob(x), rtol=1e-4, atol=1e-4)
    assert np.isfinite(log_prob).all()
    assert np.abs(x["time"] - START).max() < 1
    assert len(np.unique(x["time"])) > 150
    assert (x["mass"] > 0).all()
    assert ((x["share"] > 0.1) & (x["share"] < 0.3)).all()
    assert set(np.unique(x["die"])) <= set(range(1, 7))
    assert set(np.unique(x["band"])) <= {"g", "r", "i"}
    assert x["shots"].dtype.kind == "i"


def test_probabilities_of_whole_numbers_and_categories():
    """Check that probabilities with many noise draws sum to one and agree with samples."""
    data = np.array([[0, 2], [1, 0], [3, 1], [2, 2]] * 5)
    kinds = [afflow.Whole(0, 3), afflow.Categories([0, 1, 2])]
    made = {"columns": kinds, "data": data, "hidden": (8,), "rngs": nnx.Rngs(0)}
    flow = randomize(afflow.made(2, **made), 0.3)
    every = np.stack(np.meshgrid(np.arange(4), np.arange(3), indexing="ij"), -1).reshape(-1, 2)
    few = np.exp(flow.log_prob(every))
    many = np.exp(flow.bijector.enter(flow, num_draws=2**13).log_prob(every.astype(float)))
    np.testing.assert_allclose(many.sum(), 1, atol=0.01)
    np.testing.assert_allclose(few, many, atol=0.05)
    found = np.mean((flow.sample(KEY, 20_000)[:, None] == every).all(-1), 0)
    np.testing.assert_allclose(found, many, atol=0.01)


def test_units_change_densities_by_their_jacobian():
    """Check that a shift of the data keeps log-densities, and that a scale `s` adds `-log s`."""
    x = np.random.default_rng(0).lognormal(size=(200, 1))
    made = {"columns": [afflow.Above()], "hidden": (8,), "rngs": nnx.Rngs(0)}
    tiny, huge = (
        np.asarray(afflow.made(1, data=s * x, **made).log_prob(s * x)) for s in (1e-20, 1e20)
    )
    np.testing.assert_allclose(tiny - huge, 40 * np.log(10), rtol=1e-5)
    real = {"columns": [afflow.Real()], "hidden": (8,), "rngs": nnx.Rngs(0)}
    near, far = (np.asarray(afflow.made(1, data=s + x, **real).log_prob(s + x)) for s in (0.0, 1e9))
    np.testing.assert_allclose(near, far, rtol=1e-4, atol=1e-4)


def test_fit_takes_tables():
    """Check that `fit` accepts tables as training data and as held-out data."""
    rows, more = table(400), table(100, seed=1)
    flow = small(rows)
    options = {"key": KEY, "max_epochs": 5, "progress": False, "learning_rate": 1e-2}
    trained, history = afflow.fit(flow, rows, validation=(more,), **options)
    assert history.validation[-1] < history.validation[0]
    excess = np.mean(trained.log_prob(more)) + min(history.validation)
    assert -0.05 < excess < 0.6  # 16 noise draws against one
    again, _ = afflow.fit(flow, rows, validation=more, **options)
    np.testing.assert_array_equal(again.log_prob(more), trained.log_prob(more))


def test_values_next_to_a_bound_have_densities():
    """Check values near a bound. In float32 they would round to the bound, which has no density."""
    kinds = [afflow.Between(0.1, 0.3), afflow.Above(0.0)]
    flow = afflow.made(2, columns=kinds, rngs=nnx.Rngs(0))
    with jax.enable_x64(False):
        inside = flow.log_prob([[0.3 - 1e-12, 1e-60], [0.1 + 1e-12, 1.0]])
        outside = flow.log_prob([[0.3, 1.0], [0.2, 0.0], [0.2, np.nan]])
    assert np.isfinite(inside).all()
    np.testing.assert_array_equal(outside, [-np.inf, -np.inf, np.nan])


def test_compiled_functions():
    """Check that compiled functions take arrays and reject columns that floats do not resolve."""
    x = np.random.default_rng(0).normal(7.0, 2.0, (50, 2)).astype(np.float32)
    flow = afflow.made(2, columns=[afflow.Real(), afflow.Above(-99.0)], data=x, rngs=nnx.Rngs(0))
    inside = jax.jit(lambda flow, x: flow.log_prob(x))(flow, x)
    np.testing.assert_allclose(inside, flow.log_prob(x), rtol=1e-5)
    drawn = jax.jit(lambda flow: flow.sample(KEY, 3))(flow)
    np.testing.assert_allclose(drawn, flow.sample(KEY, 3), rtol=1e-5)
    with jax.enable_x64(False):
        times = START + np.random.default_rng(0).random((50, 1))
        flow = afflow.made(1, columns=[afflow.Real()], data=times, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match="float32 resolves"):
            jax.jit(lambda flow: flow.bijector.forward(jnp.zeros(1)))(flow)


def test_a_saved_table(tmp_path):
    rows = table()
    flow = small(rows)
    afflow.save(flow, tmp_path / "flow.zip")
    loaded = afflow.load(tmp_path / "flow.zip")
    np.testing.assert_array_equal(loaded.log_prob(rows), flow.log_prob(rows))


def test_kinds_of_a_data_frame_are_inferred():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(table(50))
    flow = afflow.made(6, columns={}, data=frame, rngs=nnx.Rngs(0))
    real, whole = afflow.Real(), afflow.Whole()
    expected = real, real, real, whole, whole, afflow.Categories(["g", "i", "r"])
    assert flow.bijector.layout.kinds == expected
    assert isinstance(flow.sample(KEY, 3), pandas.DataFrame)
    assert np.isfinite(flow.log_prob(frame.iloc[:2, ::-1])).all()


@pytest.mark.parametrize(
    ("columns", "data", "message"),
    [
        ([afflow.Real()], None, "2 columns"),
        ({5: afflow.Real()}, None, "among"),
        ({"c": afflow.Real()}, {"a": [1.0, 2], "b": [1.0, 2]}, "among"),
        ([afflow.Above(0.0)] * 2, [[1.0, 2.0], [3.0, 0.0]], "column 1 inside of Above"),
        ([afflow.Whole()] * 2, [[1.0, 2.5], [3.0, 0.0]], "whole numbers in column 1, got 2.5"),
        ([afflow.Whole(0, 3)] * 2, [[1, 2], [3, 4]], "column 1 inside of Whole"),
        ([afflow.Whole()] * 2, [[1, 2], [3, 10**6]], "take Real"),
        ([afflow.Categories("ab")] * 2, [["a", "b"], ["a", "c"]], "categories"),
        (["real", "real"], None, "Real"),
    ],
)
def test_columns_that_do_not_fit(columns, data, message):
    with pytest.raises(ValueError, match=message):
        afflow.made(2, columns=columns, data=data, rngs=nnx.Rngs(0))


def test_tables_that_do_not_fit():
    flow = small(table())
    rows = table()
    del rows["mass"]
    with pytest.raises(ValueError, match="without .*mass"):
        flow.log_prob(rows)
    with pytest.raises(ValueError, match="categories .*got 'z'"):
        flow.log_prob(table() | {"band": np.array(["z"] * 300)})
    with pytest.raises(ValueError, match="Expected different categories"):
        afflow.Categories(["a", "a"])


@pytest.mark.parametrize(
    "factory", [afflow.maf, afflow.iaf, afflow.realnvp, afflow.zoo.nice, afflow.zoo.bpf]
)
def test_every_factory_takes_columns_and_a_base(factory):
    x = np.random.default_rng(0).lognormal(size=(50, 2))
    made = {"num_layers": 2, "hidden": (4,), "rngs": nnx.Rngs(0)}
    flow = factory(
        2, columns=[afflow.Above()] * 2, base=afflow.distributions.Laplace(2), data=x, **made
    )
    assert isinstance(flow.base, afflow.distributions.Laplace)
    assert (flow.sample(KEY, 9) > 0).all()
    assert flow.log_prob(np.array([-1.0, 1.0])) == -np.inf


def test_contexts_beside_columns():
    x, h = np.random.default_rng(0).lognormal(size=(2, 50, 2))
    made = {"columns": [afflow.Above()] * 2, "data": (x, h), "rngs": nnx.Rngs(0)}
    flow = afflow.made(2, context_dim=2, hidden=(4,), **made)
    assert flow.log_prob(x, h).shape == (50,)
    assert flow.sample(KEY, 3, h[:5]).shape == (3, 5, 2)


def discrete(context_dim=0):
    """Return a flow over two whole columns, its data, and contexts."""
    x = np.random.default_rng(0).poisson(3, (60, 2))
    h = np.random.default_rng(1).normal(size=(60, 1))
    kinds = [afflow.Whole(0), afflow.Whole(0)]
    options = {"columns": kinds, "hidden": (4,), "rngs": nnx.Rngs(0)}
    data = (x, h) if context_dim else x
    return afflow.made(2, context_dim=context_dim, data=data, **options), x, h


def test_contexts_broadcast_beside_noise():
    """Check that the axis of contexts is not mixed with the axis of the 16 noise draws."""
    flow, x, h = discrete(context_dim=1)
    for num in (1, 5, 16):
        each = [flow.log_prob(x[0], context) for context in h[:num]]
        together = flow.log_prob(x[0], h[:num])
        np.testing.assert_allclose(together, each, rtol=1e-6)


def test_a_row_of_whole_numbers_has_one_probability():
    """Check that a probability depends neither on the other rows nor on `chunk`."""
    flow, x, _ = discrete()
    alone = [flow.log_prob(row) for row in x[:5]]
    np.testing.assert_allclose(flow.log_prob(x[:5]), alone, rtol=1e-6)
    np.testing.assert_allclose(flow.log_prob(x[:5], chunk=2), alone, rtol=1e-6)
    assert flow.log_prob(np.array([np.inf, 1.0])) == -np.inf
    assert np.isnan(flow.log_prob(np.array([np.nan, 1.0])))


def test_rows_with_missing_ends_have_the_density_of_what_is_there():
    """Check the sum over the categories that may be missing, and a fit to such rows."""
    rows = {name: table()[name] for name in ("mass", "band")}
    options = {"columns": {name: KINDS[name] for name in rows}, "data": rows, "hidden": (4,)}
    flow = randomize(afflow.made(2, **options, rngs=nnx.Rngs(0)), scale=0.2)
    holed = {"mass": rows["mass"][:5], "band": np.array([None] * 5, object)}
    found = flow.observed_log_prob(KEY, holed)
    each = [flow.log_prob(holed | {"band": np.array([band] * 5)}) for band in "gri"]
    np.testing.assert_allclose(found, jax.nn.logsumexp(jnp.stack(each), 0), atol=0.06)
    assert np.isnan(flow.log_prob(holed)).all()
    holed = rows | {"band": np.where(rows["mass"] > 125, None, rows["band"])}
    options = {"key": KEY, "progress": False, "max_epochs": 1}
    fitted, _ = afflow.fit(flow, holed, missing=True, **options)
    assert np.isfinite(fitted.observed_log_prob(KEY, holed)).all()
    gap = rows | {"mass": np.full(300, np.nan)}
    with pytest.raises(ValueError, match="missing one in row 0"):
        afflow.fit(flow, gap, missing=True, **options)


def test_a_missing_entry_is_no_category():
    rows = {"band": np.array(["g", None, "r", float("nan")], object)}
    with pytest.raises(ValueError, match="column band, got nan in row 1"):
        afflow.made(1, columns={}, data=rows, rngs=nnx.Rngs(0))
    flow = afflow.made(1, columns={}, data={"band": np.array(["g", "r"])}, rngs=nnx.Rngs(0))
    assert np.isnan(flow.log_prob(rows)).tolist() == [False, True, False, True]
    named = afflow.made(1, columns=[afflow.Categories(["g", "r", None])], rngs=nnx.Rngs(0))
    assert np.isfinite(named.log_prob([["g"], [None]])).all()  # a category that the caller names


def test_callbacks_and_errors_have_the_flow_of_the_table():
    flow, x, _ = discrete()
    seen = []
    options = {"key": KEY, "progress": False, "max_epochs": 1}
    trained, _ = afflow.fit(flow, x, callbacks=(seen.append for _ in range(1)), **options)
    np.testing.assert_allclose(seen[0].model.log_prob(x), trained.log_prob(x), rtol=1e-6)
    with pytest.raises(afflow.training.NonFiniteLossError) as caught:
        afflow.fit(flow, x, optimizer=optax.sgd(1e300), **options | {"max_epochs": 9})
    assert np.isfinite(caught.value.flow.log_prob(x)).all()


def test_what_compiled_functions_resolve():
    """Check that large and narrow columns are unresolved in float32, and small ones resolved."""
    with jax.enable_x64(False):
        rng = np.random.default_rng(0)
        large, narrow = 20_000_001 + rng.integers(-60, 60, (50, 1)), 1e9 + rng.normal(size=(50, 1))
        for x, kind, is_good in (
            (large, afflow.Whole(), False),
            (narrow, afflow.Real(), False),
            (np.zeros((50, 1), int), afflow.Whole(0, 3), True),
        ):
            layout = afflow.made(
                1, columns=[kind], data=x if is_good is False else np.array([[0], [1]] * 25),
                hidden=(4,), rngs=nnx.Rngs(0)
            ).bijector.layout  # fmt: skip
            assert layout.is_resolved is is_good


def test_moments_of_times_keep_their_digits():
    times = 1.1e9 + np.random.default_rng(0).random((500, 1))
    flow = afflow.made(1, columns=[afflow.Real()], data=times, hidden=(4,), rngs=nnx.Rngs(0))
    found = afflow.inference.moments(flow, key=KEY, num_samples=4000)
    np.testing.assert_allclose(found.variance.value, 1 / 12, rtol=0.1)
    np.testing.assert_allclose(found.mean.value, times.mean(0), atol=0.02, rtol=0)


def test_categories_of_every_kind_come_back():
    data = np.array([[1.5, "x"], [2.5, 7], [0.5, "x"]] * 9, object)
    kinds = [afflow.Real(), afflow.Categories(["x", 7])]
    flow = afflow.made(2, columns=kinds, data=data, hidden=(4,), rngs=nnx.Rngs(0))
    drawn = flow.sample(KEY, 40)
    assert set(drawn[:, 1]) == {"x", 7}
    assert np.isfinite(flow.log_prob(drawn)).all()
    pairs = afflow.Categories([(0, 1), (1, 0)])
    assert pairs.entries(np.array([1.0, 0.0])).tolist() == [(1, 0), (0, 1)]


def test_kinds_of_pandas_columns():
    pandas = pytest.importorskip("pandas")
    sizes = pandas.Categorical(["low", "high", "mid"] * 9, ["low", "mid", "high"], ordered=True)
    frame = pandas.DataFrame({"size": sizes, "x": np.arange(27.0)})
    layout = afflow.made(2, columns={}, data=frame, rngs=nnx.Rngs(0)).bijector.layout
    assert layout.kinds == (afflow.Categories(["low", "mid", "high"]), afflow.Real())
    frame["flag"] = pandas.array([True, False, True] * 9, "boolean")
    frame["count"] = pandas.array(range(27), "Int64")
    frame["share"] = pandas.array(np.arange(27.0), "Float64")
    flow = afflow.made(5, columns={}, data=frame, rngs=nnx.Rngs(0))
    kinds = afflow.Categories([False, True]), afflow.Whole(), afflow.Real()
    assert flow.bijector.layout.kinds[2:] == kinds
    drawn = flow.sample(KEY, 9)
    assert drawn["flag"].dtype == bool
    assert drawn["count"].dtype == np.int64
    assert np.isfinite(flow.log_prob(drawn)).all()
    for name in ("count", "share"):
        holed = frame.copy()
        holed.loc[3, name] = pandas.NA
        with pytest.raises(ValueError, match=f"{name}"):
            afflow.made(5, columns={}, data=holed, rngs=nnx.Rngs(0))
    frame["day"] = np.datetime64("2026-01-01") + np.arange(27)
    with pytest.raises(ValueError, match="dates"):
        afflow.made(6, columns={}, data=frame, rngs=nnx.Rngs(0))


def test_an_ensemble_refuses_tables():
    def make(rngs):
        return afflow.made(1, columns=[afflow.Real()], hidden=(4,), rngs=rngs)

    with pytest.raises(ValueError, match="without columns"):
        afflow.fit_ensemble(make, np.ones((9, 1)), num=2, key=KEY, progress=False)


def test_frames_of_polars_are_tables():
    polars = pytest.importorskip("polars")
    sizes = polars.Series(["low", "high", "mid"] * 9, dtype=polars.Enum(["low", "mid", "high"]))
    frame = polars.DataFrame({"size": sizes, "x": np.arange(27.0), "n": np.arange(27)})
    flow = afflow.maf(3, num_layers=1, hidden=(4,), columns={}, data=frame, rngs=nnx.Rngs(0))
    kinds = afflow.Categories(["low", "mid", "high"]), afflow.Real(), afflow.Whole()
    assert flow.bijector.layout.kinds == kinds
    assert flow.bijector.layout.names == ("size", "x", "n")
    columns = {name: frame[name].to_numpy() for name in frame.columns}
    np.testing.assert_array_equal(flow.log_prob(frame), flow.log_prob(columns))
    assert polars.DataFrame(flow.sample(KEY, 3)).columns == ["size", "x", "n"]


def test_a_cooled_flow_is_over_the_same_table():
    rows = table()
    flow = randomize(small(rows), 0.1)
    cooled = afflow.zoo.cool(flow, 0.5)
    drawn = cooled.sample(KEY, 200)
    assert set(drawn) == set(rows)
    assert set(np.unique(drawn["band"])) <= {"g", "r", "i"}
    np.testing.assert_array_equal(drawn["shots"] % 1, 0)
    assert np.std(drawn["time"]) < 0.7 * np.std(flow.sample(KEY, 200)["time"])
    assert np.isfinite(cooled.log_prob(drawn)).all()


def test_a_solver_is_chosen_whatever_the_units():
    """Check that the calibration does not need the origin of columns beyond float32."""
    columns = {"time": afflow.Real()}
    with jax.enable_x64(False):
        rows = {"time": table()["time"]}
        flow = afflow.made(1, columns=columns, hidden=(4,), data=rows, rngs=nnx.Rngs(0))
        found = afflow.calibrate(flow, KEY, num_samples=4, candidates=[afflow.Jacobi()])
    parts = (part for _, part in nnx.iter_modules(found))
    layers = [part for part in parts if isinstance(part, afflow.MaskedAutoregressive)]
    assert [layer.solver for layer in layers] == [afflow.Jacobi()]
    assert isinstance(found.bijector, type(flow.bijector))
