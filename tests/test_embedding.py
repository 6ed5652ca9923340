"""Networks that see the context: once for every context that is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

KEY = jax.random.key(0)


def flow_of_images(size=400) -> afflow.Flow:
    """Return a flow whose context is an image, seen through two layers."""
    rngs = nnx.Rngs(0)
    flow = afflow.maf(2, num_layers=1, hidden=(4,), context_dim=3, rngs=rngs)

    class Network(nnx.Module):
        def __init__(self):
            self.first, self.last = nnx.Linear(size, 50, rngs=rngs), nnx.Linear(50, 3, rngs=rngs)

        def __call__(self, image):
            return self.last(jnp.tanh(self.first(image.reshape(-1))))

    embedded = afflow.Embedded(flow.bijector, Network(), (size // 4, 4))
    return randomize(afflow.Flow(flow.base, embedded), 0.1)


def flops(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


def test_a_network_runs_once_for_every_context():
    flow = flow_of_images()
    image = jax.random.normal(KEY, (100, 4))
    one = flops(lambda h: flow.sample(KEY, 300, h), image)
    for batch in ((1,), (1, 1)):
        found = flops(lambda h: flow.sample(KEY, 300, h), image.reshape(*batch, 100, 4))
        assert found < 1.5 * one
    x = jnp.zeros((300, 1, 2))
    five = jnp.broadcast_to(image, (5, 100, 4))
    assert flops(flow.log_prob, x, five) < 6 * flops(flow.log_prob, x, image)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 1), (2, 3)])
def test_densities_are_those_of_the_network_inside(batch):
    flow = flow_of_images(8)
    contexts = jax.random.normal(KEY, (*batch, 2, 4))
    x = jax.random.normal(KEY, (5, 2, 3, 2))
    inside = flow.bijector.bijector
    given = jnp.broadcast_to(contexts, (5, 2, 3, 2, 4)).reshape(-1, 2, 4)
    plain = afflow.Flow(flow.base, inside)
    expected = plain.log_prob(x.reshape(-1, 2), jax.vmap(flow.bijector.network)(given))
    found = flow.log_prob(x, contexts)
    assert found.shape == (5, 2, 3)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)
    samples, log_prob = flow.sample_and_log_prob(KEY, 4, contexts)
    np.testing.assert_allclose(flow.log_prob(samples, contexts), log_prob, rtol=1e-9)


def test_a_network_inside_a_network():
    flow = flow_of_images(8)
    outer = afflow.Embedded(flow.bijector, lambda h: jnp.tanh(h).reshape(2, 4), (8,))
    twice = afflow.Flow(flow.base, outer)
    h, x = jax.random.normal(KEY, (3, 8)), jax.random.normal(KEY, (3, 2))
    expected = flow.log_prob(x, jnp.tanh(h).reshape(3, 2, 4))
    np.testing.assert_allclose(twice.log_prob(x, h), expected, rtol=1e-12)


def test_a_base_that_reads_the_context_keeps_it():
    classes = afflow.ClassConditional([afflow.Normal(2), afflow.Laplace(2)])
    inner = randomize(afflow.maf(2, num_layers=1, hidden=(4,), context_dim=2, rngs=nnx.Rngs(0)))
    flow = afflow.Flow(classes, afflow.Embedded(inner.bijector, jnp.tanh, 2))
    x, h = jnp.ones((4, 2)), jax.nn.one_hot(jnp.array([0, 1, 0, 1]), 2)
    z, log_det = jax.vmap(inner.bijector.inverse_and_log_det)(x, jnp.tanh(h))
    expected = jax.vmap(classes.log_prob)(z, h) + log_det
    np.testing.assert_allclose(flow.log_prob(x, h), expected, rtol=1e-12)
