"""Properties of every bijector in the registry."""

import warnings
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import BIJECTORS, TRIANGULAR, batched, cast, events

import afflow
from afflow.testing import compute_jacobians, linearize, pull_back

KEY = jax.random.key(7)
LOW_DIM = [name for name in BIJECTORS if "D=1" in name or "D=2" in name or "2-D" in name]


@pytest.mark.parametrize("name", BIJECTORS)
def test_values_and_gradients(name):
    """Run four checks in one test, because they share compiled programs."""
    bijector = BIJECTORS[name]()
    _passes_checks(bijector, name)
    _has_the_jacobians_that_it_claims(bijector)
    if not name.startswith("domain"):  # normal events lie outside; see test_domains.py
        _is_right_near_and_far(bijector)
    _has_gradients_through_sampling(bijector)


def _passes_checks(bijector, name):
    check = partial(afflow.check_bijector, bijector, triangular=name in TRIANGULAR)
    check(key=KEY)
    check(key=KEY, scale=1e-4)
    if not name.startswith("domain"):  # domains saturate
        check(key=KEY, scale=1e4)


def _has_the_jacobians_that_it_claims(bijector):
    """Check `is_triangular` and `is_elementwise` against the Jacobians of both directions."""
    if len(bijector.event_shape) != 1 or not bijector.is_triangular:
        return
    x, context = events(bijector, num=8)
    for direction in ("forward", "inverse"):
        (y, log_det), pull = linearize(direction, bijector, x, context)
        jacobians = compute_jacobians(pull, np.asarray(y), np.zeros_like(log_det))
        size = jacobians.shape[-1]
        allowed = np.eye(size) if bijector.is_elementwise else np.tri(size)
        np.testing.assert_array_equal(jacobians[:, allowed == 0], 0)
        x = y


def _is_right_near_and_far(bijector):
    for scale in (1e-4, 1e4):
        x, context = events(bijector, num=8, scale=scale)
        (y, log_det), pull = linearize("inverse", bijector, x, context)
        mean = np.full(y.shape, 1 / y.size)
        chex.assert_tree_all_finite(pull_back(pull, (mean, np.ones_like(log_det))))
        (back, _), _ = linearize("forward", bijector, y, context)
        np.testing.assert_allclose(back, x, rtol=1e-6, atol=1e-6 * scale)


def _has_gradients_through_sampling(bijector):
    z, context = events(bijector, num=8)

    def score(bijector):
        (x, log_det), pull = linearize("forward", bijector, z, context)
        return np.sum(np.sin(x)) + np.sum(log_det), (pull, (np.cos(x), np.ones_like(log_det)))

    graph, params, rest = nnx.split(bijector, nnx.Param, ...)
    params = jax.tree.map(lambda a: np.cos(np.arange(a.size)).reshape(a.shape), params)
    direction = nnx.merge(graph, params, jax.tree.map(np.zeros_like, rest))

    def moved(step):
        return score(jax.tree.map(lambda a, d: np.asarray(a) + step * d, bijector, direction))[0]

    def difference(step):
        return (moved(step) - moved(-step)) / (2 * step)

    expected = (4 * difference(1e-5) - difference(2e-5)) / 3  # without the error in step^2
    gradient, _ = pull_back(*score(bijector)[1])
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    slope = sum(np.sum(np.multiply(*pair)) for pair in pairs)
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-6)
    for leaf in jax.tree.leaves(nnx.state(gradient, afflow.core.Constant)):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize("name", BIJECTORS)
def test_float32(name):
    bijector = cast(BIJECTORS[name](), jnp.float32)
    x, context = events(bijector, dtype=jnp.float32)

    @jax.jit
    def both(x, context):
        y, log_det = batched(bijector.forward_and_log_det)(x, context)
        return y, log_det, *batched(bijector.inverse_and_log_det)(y, context)

    y, log_det, back, log_det_back = both(x, context)
    chex.assert_type([y, back, log_det, log_det_back], jnp.float32)
    np.testing.assert_allclose(back, x, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(log_det, -log_det_back, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("direction", ["forward_and_log_det", "inverse_and_log_det"])
def test_batches_are_refused(direction):
    """Check that a batch is an error. Most formulas would return one log-determinant for all."""
    for name, make in BIJECTORS.items():
        bijector = make()
        context = None if bijector.context_shape is None else jnp.zeros(bijector.context_shape)
        size, *_ = bijector.event_shape
        x = jax.ShapeDtypeStruct((size, *bijector.event_shape), float)
        with pytest.raises(ValueError, match=r"jax\.vmap"):
            print(name, jax.eval_shape(getattr(bijector, direction), x, context))


@pytest.mark.parametrize("name", TRIANGULAR)
def test_lower_triangle_is_dense(name):
    bijector = TRIANGULAR[name]()
    if any(part in name for part in ("elementwise", "standardize", "coupling", "graphical")):
        pytest.skip("sparse by design")
    if name.startswith("domain"):
        pytest.skip("normal events lie outside a domain")
    x, context = events(bijector, num=1)
    context = None if context is None else context[0]
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda x: bijector.inverse(x, context)))(x[0]))
    assert (np.abs(jacobian[np.tril_indices(len(jacobian))]) > 0).all()


@pytest.mark.parametrize("name", ["autoregressive", "repeat", "chain", "permutation"])
def test_second_call_does_not_retrace(name):
    bijector = BIJECTORS[name]()
    x, _ = events(bijector)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(bijector, x):
        return jax.vmap(bijector.forward)(x)

    run(bijector, x)
    run(jax.tree.map(lambda a: a + 1, bijector), x + 1)


@pytest.mark.parametrize("name", LOW_DIM)
def test_density_integrates_to_one(name):
    bijector = BIJECTORS[name]()
    flow = afflow.Flow(afflow.Normal(bijector.event_shape), bijector)
    _, context = events(bijector, num=1)
    context = None if context is None else context[0]
    samples = flow.sample(KEY, 4000, context)
    dim = bijector.event_shape[0]
    low, high = samples.min(0) - 4, samples.max(0) + 4
    grid, volume = _grid(low, high, 20001 if dim == 1 else 401)
    total = jnp.exp(flow.log_prob(grid, context)).sum() * volume
    np.testing.assert_allclose(total, 1, atol=2e-3)


def _grid(low, high, num):
    """Return the points of a grid `(num^D, D)`, and the volume of a cell."""
    axes = [np.linspace(a, b, num) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    return points, np.prod([axis[1] - axis[0] for axis in axes])


def test_containers_are_triangular_as_their_parts_are():
    triangular, reverse = afflow.bijectors.Triangular(2), afflow.Reverse(2)
    assert triangular.is_triangular
    assert not reverse.is_triangular
    assert afflow.Permutation([0, 1]).is_triangular
    for container, expected in (
        (afflow.Chain([triangular, afflow.bijectors.Positive(2)]), True),
        (afflow.Chain([triangular, reverse]), False),
        (afflow.Inverse(triangular), True),
        (afflow.Inverse(reverse), False),
        (afflow.bijectors.Blockwise(3, [triangular], [[0, 2]]), True),
        (afflow.bijectors.Blockwise(3, [triangular], [[2, 0]]), False),
        (afflow.bijectors.Blockwise(3, [reverse], [[0, 2]]), False),
        (afflow.Repeat(lambda rngs: afflow.bijectors.Triangular(2), 3, rngs=nnx.Rngs(0)), True),
        (afflow.Repeat(lambda rngs: afflow.Reverse(2), 3, rngs=nnx.Rngs(0)), False),
    ):
        assert container.is_triangular is expected


def test_integers_are_refused():
    """Check that no parameter is rounded to the type of an integer event."""
    rotation = afflow.bijectors.Rotation.random(3, KEY)
    for x in (jnp.array([1, 2, 3]), np.array([1, 2, 3], np.uint8), np.array([True, False, True])):
        with pytest.raises(ValueError, match="Expected a floating-point event"):
            rotation.forward(x)
    flow = afflow.Flow(afflow.Normal(3), afflow.bijectors.ActNorm(3))
    with pytest.raises(ValueError, match="Expected floating-point x"):
        afflow.bijectors.initialize_actnorm(flow, np.arange(12).reshape(4, 3))


def test_events_of_lower_precision_than_the_parameters():
    parts = [afflow.univariates.Additive(), afflow.Affine()]
    layer = afflow.Elementwise(afflow.univariates.PerDimension(parts), 2)
    x = jnp.ones(2, jnp.float32)
    np.testing.assert_allclose(layer.inverse_and_log_det(x)[0], x)
    network = afflow.MLP(1, 1, 2, rngs=nnx.Rngs(0))
    coupling = afflow.Coupling([True, False], network, afflow.Affine())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert coupling.forward(x).dtype == jnp.float32
