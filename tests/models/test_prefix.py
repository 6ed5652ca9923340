"""Prefix marginals against integration, and conditional samples against their density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import autoregressive, bnaf, cast, randomize, repeated, through

import afflow


def flow(dim=3, **options):
    """Return a lower triangular flow of one autoregressive layer."""
    layer = autoregressive(dim, (8,), **options)
    scale = afflow.Standardize(jnp.arange(1.0, dim + 1), 0.5 + jnp.arange(dim))
    return afflow.Flow(afflow.Normal(dim), afflow.Chain([layer, scale]))


def test_marginal_integrates_the_rest_out():
    model, prefix = flow(), jnp.array([0.7, 2.5])
    samples = model.sample(jax.random.key(0), 2000)[:, 2]
    axis = jnp.linspace(samples.min() - 60, samples.max() + 60, 200001)
    x = jnp.column_stack([jnp.broadcast_to(prefix, (len(axis), 2)), axis])
    expected = jnp.log(jnp.exp(model.log_prob(x)).sum() * (axis[1] - axis[0]))
    np.testing.assert_allclose(afflow.models.prefix_log_prob(model, prefix), expected, rtol=1e-6)


def test_a_block_neural_layer_has_prefixes():
    model, prefix = afflow.Flow(afflow.Normal(2), bnaf(2, (3, 2))), jnp.array([0.7])
    rest = jnp.linspace(-60, 60, 20001)
    x = jnp.column_stack([jnp.broadcast_to(prefix, (len(rest), 1)), rest])
    expected = jnp.log(jnp.exp(model.log_prob(x)).sum() * (rest[1] - rest[0]))
    np.testing.assert_allclose(afflow.models.prefix_log_prob(model, prefix), expected, rtol=1e-6)


def test_whole_events_and_batches():
    model, x = flow(context_dim=2), jax.random.normal(jax.random.key(1), (4, 5, 3))
    context = jax.random.normal(jax.random.key(2), (5, 2))
    found = afflow.models.prefix_log_prob(model, x, context)
    np.testing.assert_allclose(found, model.log_prob(x, context), rtol=1e-10)


@pytest.mark.parametrize(
    "end", [afflow.bijectors.Exp(3), afflow.bijectors.Tanh(3), afflow.bijectors.LeakyReLU(3)]
)
def test_elementwise_ends_change_a_marginal_by_their_slopes(end):
    model, z = flow(), jnp.array([0.7, 0.2])
    behind = afflow.Flow(model.base, afflow.Chain([*model.bijector.bijectors, end]))
    whole, log_det = end.forward_and_log_det(jnp.array([0.7, 0.2, 0.0]))
    _, rest = end.forward_and_log_det(jnp.zeros(3))
    log_det -= rest / 3  # the share of the third coordinate, which is zero
    expected = afflow.models.prefix_log_prob(model, z) - log_det
    np.testing.assert_allclose(
        afflow.models.prefix_log_prob(behind, whole[:2]), expected, rtol=1e-10
    )


def test_rest_follows_the_conditional():
    """Check that the noise of the drawn coordinate is standard normal."""
    model, prefix = flow(), jnp.broadcast_to(jnp.array([0.7, 2.5]), (4000, 2))
    x = afflow.models.sample_rest(model, jax.random.key(3), prefix)
    np.testing.assert_array_equal(x[:, :2], prefix)
    z = jax.vmap(model.bijector.inverse)(x)[:, 2]
    assert abs(z.mean()) < 4 / np.sqrt(4000)
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / 4000)
    assert len(np.unique(x[:, 2])) == 4000


def integrated(model, prefix, low, high, num=200001):
    """Return the log-density of two of three coordinates, by quadrature over the third."""
    axis = jnp.linspace(low, high, num)[1:-1]
    x = jnp.column_stack([jnp.broadcast_to(prefix, (len(axis), 2)), axis])
    return jnp.log(jnp.exp(model.log_prob(x)).sum() * (axis[1] - axis[0]))


LOW, HIGH = np.array([0.0, -1.0, 2.0]), np.array([1.0, 3.0, 2.5])
ENDS = {
    "reordered noise": (afflow.Normal(3), afflow.Standardize(jnp.ones(3), jnp.ones(3)), -60, 60),
    "positive": (afflow.Normal(3), afflow.bijectors.Positive(3), 0, 120),
    "interval": (afflow.Normal(3), afflow.bijectors.Interval(-HIGH, HIGH), -2.5, 2.5),
    "ordered": (afflow.Normal(3), afflow.bijectors.Ordered(3), 1.1, 120),
    "a box": (afflow.Uniform(3, LOW, HIGH), afflow.Inverse(afflow.Reverse(3)), -60, 60),
}


@pytest.mark.parametrize("name", ENDS)
def test_marginals_behind_other_parts(name):
    base, end, low, high = ENDS[name]
    turn = afflow.Permutation([1, 2, 0])
    layers = [turn, afflow.Inverse(turn), turn, autoregressive(3, (8,))]
    layers = [end, *layers] if name == "a box" else [*layers, end]
    model, prefix = afflow.Flow(base, afflow.Chain(layers)), jnp.array([0.3, 1.1])
    if name == "a box":
        prefix = model.sample(jax.random.key(5))[:2]
    found = afflow.models.prefix_log_prob(model, prefix)
    assert np.isfinite(found)
    tol = 1e-3 if name == "a box" else 1e-6  # the integrand of the box jumps
    np.testing.assert_allclose(found, integrated(model, prefix, low, high), rtol=tol)
    x = afflow.models.sample_rest(model, jax.random.key(3), prefix, shape=500)
    assert x.shape == (500, 3)
    assert np.isfinite(model.log_prob(x)).all()
    again = jax.vmap(model.bijector.inverse)(x)
    assert (np.ptp(again, axis=0) > 1e-3).sum() == 1  # the noise of one coordinate is free


def columns() -> afflow.Flow:
    """Return the README's flow over an angle, a positive and a real column."""
    to = afflow.Inverse(afflow.bijectors.Interval(-np.pi, np.pi))
    real = afflow.Chain([to, afflow.RationalQuadraticSpline()])
    positive = afflow.Chain([to, afflow.RationalQuadraticSpline(), afflow.bijectors.Positive(())])
    kinds = afflow.univariates.PerDimension([afflow.univariates.CircularSpline(), positive, real])
    made = randomize(afflow.MADE(3, *kinds.context_shape, (6,), rngs=nnx.Rngs(0)))
    layer = afflow.MaskedAutoregressive(made, kinds)
    return afflow.Flow(afflow.Uniform(3, -np.pi, np.pi), layer)


FAR = {
    "columns": (columns, [[0.5, 1.0, 17.0], [-np.pi, 20.0, 1.0], [np.pi, 1.0, -30.0]]),
    "mixture": (
        lambda: afflow.Flow(afflow.Normal(3), through(afflow.univariates.MixtureCDF(3), 3)),
        [[30.0, -20.0, 25.0], [300.0, 0.0, -200.0]],
    ),
    "inverse": (
        lambda: afflow.Flow(afflow.Normal(3), afflow.Inverse(afflow.bijectors.Positive(3))),
        [[-90.0, 1.0, -40.0]],
    ),
}


@pytest.mark.parametrize("name", FAR)
def test_far_out_a_whole_event_is_as_dense_as_the_flow_says(name):
    make, x = FAR[name]
    model, x = cast((make(), jnp.array(x)), jnp.float32)
    found = afflow.models.prefix_log_prob(model, x)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, model.log_prob(x), rtol=1e-5)
    assert np.isfinite(afflow.models.prefix_log_prob(model, x[:, :2])).all()


def test_outside_the_domain_a_prefix_has_no_density():
    model = afflow.Flow(
        afflow.Normal(3), afflow.Chain([autoregressive(3), afflow.bijectors.Positive(3)])
    )
    prefix = jnp.array([-1.0, 1.0])
    value, gradient = jax.value_and_grad(lambda x: afflow.models.prefix_log_prob(model, x))(prefix)
    assert value == -np.inf
    assert np.isfinite(gradient).all()


def test_one_layer_of_a_factory_has_prefixes():
    data = np.random.default_rng(0).normal(size=(9, 3)), np.ones((9, 1)) * np.arange(9)[:, None]
    options = {"num_layers": 1, "hidden": (4,), "context_dim": 1, "data": data}
    model = randomize(afflow.nsf(3, **options, rngs=nnx.Rngs(0)))
    x, context = jnp.asarray(data[0]), jnp.asarray(data[1])
    expected = model.log_prob(x, context)
    np.testing.assert_allclose(
        afflow.models.prefix_log_prob(model, x, context), expected, rtol=1e-9
    )
    found = afflow.models.prefix_log_prob(
        model, [[0.5, 1.0]], context
    )  # lists, with axes that broadcast
    one = [afflow.models.prefix_log_prob(model, jnp.array([0.5, 1.0]), h) for h in context]
    np.testing.assert_allclose(found, jnp.stack(one), rtol=1e-9)
    assert afflow.models.sample_rest(model, jax.random.key(0), [0.5], context, (4, 2)).shape == (
        4,
        2,
        9,
        3,
    )
    with pytest.raises(ValueError, match="no context"):
        afflow.models.prefix_log_prob(model, x)
    with pytest.raises(ValueError, match="floating"):
        afflow.models.prefix_log_prob(model, [1, 2], context)


def test_the_gradient_is_that_of_the_marginal():
    model, prefix = flow(), jnp.array([0.7, 2.5])
    found = jax.grad(lambda x: afflow.models.prefix_log_prob(model, x))(prefix)
    step, prefix = 1e-5 * np.eye(2), np.asarray(prefix)
    values = [afflow.models.prefix_log_prob(model, prefix + sign * step) for sign in (1, -1)]
    np.testing.assert_allclose(found, (values[0] - values[1]) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("name", ["columns", "in a permuted box", "with a context"])
def test_a_row_that_ends_in_nan_has_the_density_of_its_prefix(name):
    turn, context = afflow.Permutation([1, 2, 0]), None
    if name == "columns":
        model = columns()
    elif name == "with a context":
        model, context = flow(context_dim=2), jnp.array([0.3, -1.0])
    else:
        model = afflow.Flow(
            afflow.Uniform(3, LOW, HIGH), afflow.Chain([turn, autoregressive(3, (8,))])
        )
    x = model.sample(jax.random.key(4), 5, context)
    sizes = (1, 2, 3, 1, 2)
    holed = jnp.asarray(np.where(np.arange(3) < np.array(sizes)[:, None], x, np.nan))
    found = model.observed_log_prob(jax.random.key(0), holed, context)
    expected = [
        afflow.models.prefix_log_prob(model, row[:size], context)
        for row, size in zip(x, sizes, strict=True)
    ]
    np.testing.assert_allclose(found, jnp.stack(expected), rtol=1e-9)
    nothing = model.observed_log_prob(jax.random.key(0), jnp.full(3, jnp.nan), context)
    np.testing.assert_allclose(nothing, 0, atol=1e-12)


def test_the_gradient_of_the_parameters_is_that_of_the_marginal():
    model = flow()
    x = jnp.array([[0.7, 2.5, jnp.nan], [0.1, jnp.nan, jnp.nan], [0.2, 1.0, 3.0]])
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    direction = jax.tree.map(lambda a: jnp.sin(jnp.arange(a.size)).reshape(a.shape), params)

    @jax.jit
    def mean(step):
        moved = jax.tree.map(lambda a, d: a + step * d, params, direction)
        return nnx.merge(graph, moved, rest).observed_log_prob(jax.random.key(0), x).mean()

    slope = (mean(1e-5) - mean(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(mean)(0.0), slope, rtol=1e-6)


def test_a_row_far_out_has_a_finite_gradient():
    """Check an observed coordinate whose slope underflows: -z for a standard normal z."""
    model = cast(afflow.Flow(afflow.Normal(2), afflow.bijectors.Positive(2)), jnp.float32)
    x = jnp.array([200.0, jnp.nan], jnp.float32)
    inverse = cast(afflow.Flow(afflow.Normal(2), afflow.Inverse(model.bijector)), jnp.float32)
    for flow_, row in ((model, x), (inverse, -x)):
        slope = jax.grad(lambda x, f=flow_: f.observed_log_prob(jax.random.key(0), x))(row)
        assert np.isfinite(slope[0])
        assert abs(slope[0]) > 1e-3


def test_a_fit_to_rows_with_missing_ends_finds_the_whole_distribution():
    """Check values that are missing more often behind large ones: complete rows are biased."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=4000)
    x = np.column_stack([first, 0.8 * first + 0.6 * rng.normal(size=4000)])
    gone = rng.random(4000) < np.where(first > 0, 0.9, 0.1)
    holed = np.where(gone[:, None] & [False, True], np.nan, x)
    model, _ = afflow.fit(
        afflow.made(2, hidden=(8,), rngs=nnx.Rngs(0)),
        holed,
        key=jax.random.key(0),
        missing=True,
        max_epochs=30,
        learning_rate=0.01,
        progress=False,
    )
    truth = np.log(2 * np.pi * 0.6) + 1
    assert abs(truth + np.mean(model.log_prob(x))) < 0.06


def test_what_cannot_be_exact_is_refused():
    gap = jnp.array([[0.0, 1.0, jnp.nan], [0.0, jnp.nan, 1.0]])
    with pytest.raises(ValueError, match="missing one in row 1"):
        flow().observed_log_prob(jax.random.key(0), gap)
    options = {"key": jax.random.key(0), "missing": True, "progress": False}
    with pytest.raises(ValueError, match="keep the order"):
        afflow.fit(afflow.Flow(afflow.Normal(3), repeated(3)), gap, **options)
    with pytest.raises(ValueError, match="missing one in row 1"):
        afflow.fit(flow(), gap, **options)
    for bijector in (repeated(3), afflow.Chain([autoregressive(3), afflow.Reverse(3)])):
        with pytest.raises(ValueError, match="keep the order"):
            afflow.models.prefix_log_prob(afflow.Flow(afflow.Normal(3), bijector), jnp.zeros(2))
    with pytest.raises(ValueError, match="k"):
        afflow.models.prefix_log_prob(flow(), jnp.zeros(4))
    image = afflow.Flow(afflow.Normal((2, 2)), afflow.bijectors.Positive((2, 2)))
    with pytest.raises(ValueError, match="over vectors"):
        afflow.models.prefix_log_prob(image, jnp.zeros(2))


def test_coupling_and_graph_refuse_bad_input():
    network = afflow.MLP(1, 2, 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="coordinates to transform"):
        afflow.Coupling([True, True], network, afflow.Affine())
    with pytest.raises(ValueError, match="returns"):
        afflow.Coupling([True, False], network, afflow.Affine())
    with pytest.raises(ValueError, match="topological"):
        afflow.conditioners.Graphical([[0, 1], [0, 0]], 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="adjacency"):
        afflow.conditioners.Graphical([[0, 1]], 2, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="sizes|size|Expected"):
        afflow.MLP(1, 0, 2, rngs=nnx.Rngs(0))


def test_graph_decodes_in_as_many_passes_as_its_longest_path():
    """Check a star, which needs two passes, and a chain of five nodes, which needs five."""
    star = np.zeros((11, 11), bool)
    star[1:, 0] = True
    assert afflow.conditioners.Graphical(star, 2, rngs=nnx.Rngs(0)).num_levels == 2
    assert afflow.conditioners.Graphical(np.eye(5, k=-1), 2, rngs=nnx.Rngs(0)).num_levels == 5


@pytest.mark.parametrize("far", [[np.inf, -np.inf], [-np.inf, 0.0], [0.0, np.inf]])
def test_an_infinite_coordinate_has_density_zero(far):
    model = randomize(flow())
    assert afflow.models.prefix_log_prob(model, jnp.array(far)) == -jnp.inf
    assert model.observed_log_prob(jax.random.key(0), jnp.array([*far, jnp.nan])) == -jnp.inf
    assert np.isnan(afflow.models.prefix_log_prob(model, jnp.array([np.inf, np.nan])))
