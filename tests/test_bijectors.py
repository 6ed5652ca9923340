"""The properties that every bijector in the registry has."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import BIJECTORS, TRIANGULAR, batched, cast, events

import afflow

KEY = jax.random.key(7)
LOW_DIM = [name for name in BIJECTORS if "D=1" in name or "D=2" in name or "2-D" in name]


@pytest.mark.parametrize("name", BIJECTORS)
def test_checks_pass(name):
    check = partial(afflow.check_bijector, BIJECTORS[name](), triangular=name in TRIANGULAR)
    check(key=KEY)
    check(key=KEY, scale=1e-4)
    if not name.startswith("domain"):  # which saturates
        check(key=KEY, scale=1e4)


@pytest.mark.parametrize("name", BIJECTORS)
def test_float32(name):
    bijector = cast(BIJECTORS[name](), jnp.float32)
    x, context = events(bijector, dtype=jnp.float32)
    y, log_det = jax.jit(batched(bijector.forward_and_log_det))(x, context)
    back, log_det_back = jax.jit(batched(bijector.inverse_and_log_det))(y, context)
    chex.assert_type([y, back, log_det, log_det_back], jnp.float32)
    np.testing.assert_allclose(back, x, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(log_det, -log_det_back, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", BIJECTORS)
def test_near_and_far(name):
    if name.startswith("domain"):
        pytest.skip("normal events lie outside a domain; see test_domains.py")
    bijector = BIJECTORS[name]()

    @jax.jit
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def score(bijector, x, context):
        y, log_det = batched(bijector.inverse_and_log_det)(x, context)
        return jnp.sum(log_det) + jnp.mean(y), y

    forward = jax.jit(batched(bijector.forward_and_log_det))
    for scale in (1e-4, 1e4):
        x, context = events(bijector, scale=scale)
        (_, y), grads = score(bijector, x, context)
        chex.assert_tree_all_finite(grads)
        back, _ = forward(y, context)
        np.testing.assert_allclose(back, x, rtol=1e-6, atol=1e-6 * scale)


@pytest.mark.parametrize("name", TRIANGULAR)
def test_lower_triangle_is_dense(name):
    bijector = TRIANGULAR[name]()
    if any(part in name for part in ("elementwise", "standardize", "coupling", "graphical")):
        pytest.skip("sparse by design")
    if name.startswith("domain"):
        pytest.skip("normal events lie outside a domain")
    x, context = events(bijector, num=1)
    context = None if context is None else context[0]
    jacobian = jax.jit(jax.jacfwd(lambda x: bijector.inverse(x, context)))(x[0])
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


@pytest.mark.parametrize("name", BIJECTORS)
def test_gradient_through_sampling(name):
    bijector = BIJECTORS[name]()
    z, context = events(bijector, num=3)

    @jax.jit
    @jax.value_and_grad
    def score(bijector):
        x, log_det = batched(bijector.forward_and_log_det)(z, context)
        return jnp.sum(jnp.sin(x)) + jnp.sum(log_det)

    direction = jax.tree.map(lambda a: np.cos(np.arange(a.size)).reshape(a.shape), bijector)
    step = 1e-5
    ahead, behind = (
        jax.tree.map(lambda a, d, s=s: np.asarray(a) + s * d, bijector, direction)
        for s in (step, -step)
    )
    expected = (score(ahead)[0] - score(behind)[0]) / (2 * step)
    pairs = zip(jax.tree.leaves(score(bijector)[1]), jax.tree.leaves(direction), strict=True)
    slope = sum(np.sum(np.multiply(*pair)) for pair in pairs)
    np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-6)


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
    axes = [np.linspace(a, b, num) for a, b in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    return points, np.prod([axis[1] - axis[0] for axis in axes])
