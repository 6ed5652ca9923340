"""The properties that the flow of every factory has."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import FLOWS, KEY, cast

import afflow

CONTEXT = jnp.array([0.7, -1.2])
FAR = jnp.array([0.0, 30.0, -1e4, 1e6, -1e6, jnp.nan])


@pytest.mark.parametrize("name", FLOWS)
def test_flow(name):
    """Both directions have the density of the change of variables, from near to far."""
    flow, tol = FLOWS[name](), 1e-4 if name == "cnf" else 1e-9
    x, of_samples = flow.sample_and_log_prob(KEY, 3, CONTEXT)
    log_prob, by_x, by_context, base = _jacobians(flow, x, CONTEXT)
    np.testing.assert_allclose(log_prob, base + np.linalg.slogdet(by_x)[1], rtol=tol)
    np.testing.assert_allclose(of_samples, log_prob, rtol=tol)
    assert (by_context != 0).any((0, 2)).all()

    pattern = jnp.cos(jnp.arange(x[0].size)).reshape(x[0].shape)
    x = jnp.concatenate([x, jnp.tensordot(FAR, pattern, 0)])
    single, grads = _gradients(*cast((flow, x, CONTEXT), jnp.float32))
    chex.assert_type(single, jnp.float32)
    np.testing.assert_allclose(single[:3], log_prob, rtol=1e-4)
    assert np.isnan(single).tolist() == [False] * (len(x) - 1) + [True]
    chex.assert_tree_all_finite(jax.tree.map(lambda a: a[:-1], grads))


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, None))
def _jacobians(flow, x, context):
    """Return the log-density, Jacobians of the noise, and the log-density of the noise."""

    def noise(x, context):
        z = flow.bijector.inverse(x, context)
        return z.reshape(-1), flow.base.log_prob(z, context)

    (by_x, by_context), base = jax.jacrev(noise, (0, 1), has_aux=True)(x, context)
    return flow.log_prob(x, context), by_x.reshape(x.size, x.size), by_context, base


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, None))
@partial(jax.value_and_grad, argnums=(0, 1))
def _gradients(flow, x, context):
    return flow.log_prob(x, context)


def test_bnaf_starts_close_to_the_identity():
    layer = afflow.BNAF(2, (16, 16), rngs=nnx.Rngs(0))
    y = jnp.linspace(-2, 2, 9)
    y = jnp.stack(jnp.meshgrid(y, y), -1).reshape(-1, 2)
    x, log_det = jax.jit(jax.vmap(layer.inverse_and_log_det))(y)
    assert np.abs(x - y).max() < 0.3
    assert np.abs(log_det).max() < 0.3
