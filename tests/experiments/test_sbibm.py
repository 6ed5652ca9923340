"""The simulators of the tasks of sbibm against their likelihoods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulators.sbibm import TASKS

KEY = jax.random.key(0)
PLANE = {"two_moons": ([0.2, -0.5], 0.25), "gaussian_mixture": ([3.0, -1.0], 6.0)}
SMOOTH = {
    "gaussian_linear": np.linspace(-0.5, 0.5, 10),
    "gaussian_mixture": np.array([3.0, -1.0]),
    "slcp": np.array([1.0, -2.0, 1.5, 0.8, 0.6]),
}


def simulate(task, theta, n):
    return jax.vmap(task.simulator, (0, None))(jax.random.split(KEY, n), jnp.asarray(theta))


@pytest.mark.parametrize("name", PLANE)
def test_likelihood_is_normalised_with_the_moments_of_the_simulator(name):
    theta, reach = PLANE[name]
    task = TASKS[name]()
    x = simulate(task, theta, 4000)
    line = jnp.linspace(-reach, reach, 801)
    grid = x.mean(0)[None] + jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)
    weights = jnp.exp(jax.vmap(task.log_likelihood, (None, 0))(jnp.asarray(theta), grid))
    weights *= (line[1] - line[0]) ** 2
    np.testing.assert_allclose(weights.sum(), 1, atol=5e-3)
    mean = weights @ grid
    std = jnp.sqrt(weights @ (grid - mean[None]) ** 2)
    np.testing.assert_allclose(x.mean(0), mean, atol=0.06 * std.max())
    np.testing.assert_allclose(x.std(0), std, rtol=0.06)


@pytest.mark.parametrize("name", SMOOTH)
def test_score_has_mean_zero(name):
    """Check the identity of the score, which holds for data of the likelihood only."""
    task, theta = TASKS[name](), jnp.asarray(SMOOTH[name])
    x = simulate(task, theta, 4000)
    score = jax.vmap(jax.grad(task.log_likelihood), (None, 0))(theta, x)
    error = np.std(score, axis=0) / 4000**0.5
    np.testing.assert_allclose(score.mean(0) / error, 0, atol=4)


@pytest.mark.parametrize("name", TASKS)
def test_prior_holds_its_samples(name):
    task = TASKS[name]()
    theta = task.prior.sample(KEY, 100)
    assert np.isfinite(task.prior.log_prob(theta)).all()
    x = jax.vmap(task.simulator)(jax.random.split(KEY, 100), theta)
    assert np.isfinite(jax.vmap(task.log_likelihood)(theta, x)).all()
