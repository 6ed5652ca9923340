"""A linear Gaussian model, whose posterior is known, and wrong versions of this posterior.

theta ~ Normal(0, I), x = A theta + noise, noise ~ Normal(0, I / 4).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

MATRIX = np.array([[1.0, 0.5], [0.0, 1.0], [-0.5, 0.2]])
PRECISION = np.eye(2) + 4 * MATRIX.T @ MATRIX
COVARIANCE = np.linalg.inv(PRECISION)
ROOT = np.linalg.cholesky(COVARIANCE)


def simulate(key, theta):
    """Simulate one observation `(3,)`."""
    return jnp.asarray(MATRIX) @ theta + 0.5 * jax.random.normal(key, (3,))


def draw_pairs(size, seed):
    """Draw parameters `(N, 2)` of the prior and their observations `(N, 3)`."""
    for_theta, for_x = jax.random.split(jax.random.key(seed))
    theta = jax.random.normal(for_theta, (size, 2))
    return theta, jax.vmap(simulate)(jax.random.split(for_x, size), theta)


@dataclasses.dataclass(frozen=True)
class Posterior:
    """The posterior, its deviations multiplied by `scale` and its mean moved by `shift`."""

    scale: float = 1.0
    shift: float = 0.0

    def sample(self, key, num, x):
        noise = jax.random.normal(key, (num, *x.shape[:-1], 2))
        return self._find_mean(x)[None] + self.scale * noise @ ROOT.T

    def log_prob(self, theta, x):
        deviations = (theta - self._find_mean(x)[(None,) * (theta.ndim - x.ndim)]) / self.scale
        return -0.5 * jnp.einsum("...i,ij,...j", deviations, PRECISION, deviations)

    def _find_mean(self, x):
        return x @ (4 * MATRIX @ COVARIANCE) + self.shift


class Prior:
    """The prior in place of the posterior."""

    def sample(self, key, num, x):
        return jax.random.normal(key, (num, *x.shape[:-1], 2))

    def log_prob(self, theta, x):
        return -0.5 * (theta**2).sum(-1)
