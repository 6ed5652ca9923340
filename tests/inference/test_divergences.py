"""The objectives of variational inference: values, and gradients in the mean."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

KEY = jax.random.key(0)
MU, SIGMA, LOG_Z = jnp.array([0.3, -0.5]), jnp.array([0.7, 1.4]), 2.0
BOUND = partial(afflow.inference.importance_weighted, group=4)
PATH_BOUND = partial(afflow.inference.doubly_reparameterized, group=4)


def target(x):
    """Return the log-density of N(MU, SIGMA), plus LOG_Z."""
    z = (x - MU) / SIGMA
    return LOG_Z - jnp.sum(0.5 * z**2 + jnp.log(SIGMA * jnp.sqrt(2 * jnp.pi)))


def gaussian_flow():
    """Return a normal flow with a random location and scale."""
    return randomize(afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.Affine(), 2)), 0.3)


def moments(flow):
    """Return the mean and standard deviation of an affine flow."""
    mean = flow.bijector.forward(jnp.zeros(2))
    return mean, flow.bijector.forward(jnp.ones(2)) - mean


def exact_reverse_kl(flow):
    """Return the exact reverse KL divergence of an affine flow, minus LOG_Z."""
    m, s = moments(flow)
    return jnp.sum(jnp.log(SIGMA / s) + (s**2 + (m - MU) ** 2) / (2 * SIGMA**2) - 0.5) - LOG_Z


def exact_forward_kl(flow):
    """Return the exact forward KL divergence of an affine flow."""
    m, s = moments(flow)
    return jnp.sum(jnp.log(s / SIGMA) + (SIGMA**2 + (m - MU) ** 2) / (2 * s**2) - 0.5)


def layered(factory, context_dim=0):
    """Return a flow with one autoregressive layer and random weights."""
    options = {"num_layers": 1, "hidden": (5,), "activation": jnp.tanh}
    return randomize(factory(2, context_dim=context_dim, **options, rngs=nnx.Rngs(0)), 0.4)


def values_and_gradients(objective, flow, log_density, num_samples, runs):
    """Return values `(runs,)` and gradients `(runs, num_params)` of repeated estimates."""

    @jax.jit
    @jax.vmap
    def estimate(key):
        value, gradient = jax.value_and_grad(objective)(flow, log_density, key, num_samples)
        return value, jax.flatten_util.ravel_pytree(nnx.split(gradient, nnx.Param, ...)[1])[0]

    return jax.tree.map(np.array, estimate(jax.random.split(KEY, runs)))


def assert_mean(samples, expected):
    """Check that the mean of `samples` is within 4.5 standard errors of `expected`."""
    error = samples.std(0) / len(samples) ** 0.5
    np.testing.assert_array_less(np.abs(samples.mean(0) - expected), 4.5 * error + 1e-12)


@pytest.mark.parametrize(
    "objective", [afflow.inference.reverse_kl, afflow.inference.sticking_the_landing]
)
def test_unbiased_for_gaussians(objective):
    flow = gaussian_flow()
    values, gradients = values_and_gradients(objective, flow, target, 2, 4000)
    value, gradient = jax.value_and_grad(exact_reverse_kl)(flow)
    assert_mean(values, float(value))
    assert_mean(gradients, np.array(gradient.bijector.params[...]).ravel())


def test_forward_kl_of_gaussians():
    """Check the estimate with many samples. Its bias falls with their number."""
    flow = gaussian_flow()
    values, gradients = values_and_gradients(afflow.inference.forward_kl, flow, target, 20_000, 20)
    value, gradient = jax.value_and_grad(exact_forward_kl)(flow)
    np.testing.assert_allclose(values.mean(), value, atol=0.02)
    gradient = gradient.bijector.params[...].ravel()
    np.testing.assert_allclose(gradients.mean(0), gradient, atol=0.05)


PAIRS = {
    "maf": (afflow.maf, afflow.inference.reverse_kl, afflow.inference.sticking_the_landing, 1),
    "iaf": (afflow.iaf, afflow.inference.reverse_kl, afflow.inference.sticking_the_landing, 1),
    "iaf bound": (afflow.iaf, BOUND, PATH_BOUND, 4),
}


@pytest.mark.parametrize("name", PAIRS)
def test_path_gradients_agree_on_average(name):
    """Check that path gradients differ from plain gradients by noise of mean zero."""
    factory, plain, path, num_samples = PAIRS[name]
    arguments = layered(factory), target, num_samples, 1500
    values, gradients = values_and_gradients(plain, *arguments)
    path_values, path_gradients = values_and_gradients(path, *arguments)
    np.testing.assert_allclose(path_values, values, atol=1e-9)
    assert_mean(path_gradients - gradients, 0)
    assert np.abs(path_gradients - gradients).max() > 0.1


@pytest.mark.parametrize(
    "path", [afflow.inference.sticking_the_landing, PATH_BOUND], ids=["elbo", "bound"]
)
@pytest.mark.parametrize("factory", [afflow.maf, afflow.iaf])
def test_path_gradients_vanish_at_the_target(factory, path):
    flow = layered(factory)
    itself = layered(factory).log_prob
    _, gradients = values_and_gradients(path, flow, itself, 4, 50)
    assert np.abs(gradients).max() < 1e-10


def test_plain_gradients_are_noisy_at_the_target():
    flow = layered(afflow.maf)
    _, gradients = values_and_gradients(afflow.inference.reverse_kl, flow, flow.log_prob, 4, 50)
    assert gradients.std(0).max() > 0.1


def test_a_group_of_one_is_the_elbo():
    one = partial(afflow.inference.doubly_reparameterized, group=1)
    for a, b in zip(
        values_and_gradients(one, gaussian_flow(), target, 4, 5),
        values_and_gradients(afflow.inference.sticking_the_landing, gaussian_flow(), target, 4, 5),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_bounds_are_ordered():
    """Check ELBO < bound of 4 < bound of 64 <= log Z, on the same samples."""
    flow = gaussian_flow()
    groups = [1, 4, 64]
    bounds = [
        -partial(afflow.inference.importance_weighted, group=k)(flow, target, KEY, 64 * 200)
        for k in groups
    ]
    assert bounds[0] + 0.05 < bounds[1]
    assert bounds[1] + 0.005 < bounds[2] < LOG_Z + 0.01
    np.testing.assert_allclose(bounds[0], -afflow.inference.reverse_kl(flow, target, KEY, 64 * 200))


def test_forward_kl_learns_where_samples_have_no_derivative():
    """Check that `forward_kl` trains the weights of a mixture base, unlike path gradients."""
    ends = [
        afflow.distributions.LocationScale(afflow.Normal(1), jnp.full(1, m), jnp.ones(1))
        for m in (-4.0, 4)
    ]
    flow = afflow.Flow(afflow.distributions.Mixture(ends), afflow.Reverse(1))

    def uneven(x):
        return jax.nn.logsumexp(jnp.log(jnp.array([0.8, 0.2])) - (x - jnp.array([-4, 4])) ** 2 / 2)

    _, gradients = values_and_gradients(afflow.inference.forward_kl, flow, uneven, 4000, 4)
    np.testing.assert_allclose(gradients.mean(0)[-2:], [-0.3, 0.3], atol=0.02)
    _, gradients = values_and_gradients(afflow.inference.sticking_the_landing, flow, uneven, 400, 1)
    np.testing.assert_array_equal(gradients[0, -2:], 0)


@pytest.mark.parametrize("objective", [BOUND, PATH_BOUND, afflow.inference.forward_kl])
def test_contexts(objective):
    """Check that the loss of a batch of contexts is the mean of the losses."""
    flow = layered(afflow.iaf, context_dim=1)
    contexts = jnp.array([[0.5], [-1.0]])

    def log_density(x, context):
        return 0.8 * flow.log_prob(x, context) + context[0]

    both = objective(flow, log_density, KEY, 4000, contexts)
    alone = [objective(flow, log_density, KEY, 4000, context) for context in contexts]
    np.testing.assert_allclose(both, np.mean(alone), atol=0.05)
    assert abs(alone[0] - alone[1]) > 0.5 or objective is afflow.inference.forward_kl


def test_a_group_must_divide():
    for objective in (
        afflow.inference.importance_weighted,
        afflow.inference.doubly_reparameterized,
    ):
        with pytest.raises(ValueError, match="divides num_samples=10, got 4"):
            objective(gaussian_flow(), target, KEY, 10, group=4)


def test_a_sample_without_weight_counts_in_the_bound():
    flow = gaussian_flow()

    def half(x):
        return jnp.where(x[0] > 0, target(x), -jnp.inf)

    options = flow, half, KEY, 40
    value, gradient = jax.value_and_grad(lambda flow: PATH_BOUND(flow, *options[1:]))(flow)
    np.testing.assert_allclose(value, BOUND(*options), rtol=1e-10)
    found = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])
    assert np.isfinite(found).all()
    assert jnp.abs(found).max() > 0
