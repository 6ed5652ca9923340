"""Four unnormalised densities, each with reference samples that come from no flow."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import cauchy, norm
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])  # Rubin 1981
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


class Posterior(NamedTuple):
    """A log-density of one event, reference samples, and two coordinates to draw.

    The reference samples are exact, or from long Markov chains.
    """

    log_density: Callable[[jax.Array], jax.Array]
    reference: np.ndarray  # (N, D)
    pair: tuple[int, int]
    labels: tuple[str, str]
    log_z: float | None = None  # None if unknown
    r_hat: float | None = None  # for references from Markov chains


def funnel(size: int) -> Posterior:
    """Neal's funnel (2003): nine normals with a common log-variance.

    The log-variance is normal with standard deviation 3.
    """

    def log_density(x):
        v, rest = x[0], x[1:]
        return norm.logpdf(v, 0, 3) + norm.logpdf(rest, 0, jnp.exp(v / 2)).sum()

    rng = np.random.default_rng(0)
    v = rng.normal(0, 3, (size, 1))
    reference = np.hstack([v, np.exp(v / 2) * rng.normal(size=(size, 9))])
    return Posterior(log_density, reference, (1, 0), ("$x_1$", "$v$"), log_z=0.0)


def banana(size: int) -> Posterior:
    """Two normals; the mean of the second is a parabola in the first."""

    def log_density(x):
        return norm.logpdf(x[0], 0, 2) + norm.logpdf(x[1], x[0] ** 2 / 2, 0.5)

    rng = np.random.default_rng(0)
    first = rng.normal(0, 2, size)
    reference = np.stack([first, first**2 / 2 + rng.normal(0, 0.5, size)], 1)
    return Posterior(log_density, reference, (0, 1), ("$x_1$", "$x_2$"), log_z=0.0)


def eight_schools(size: int) -> Posterior:
    r"""Rubin's eight schools, centred, over $(\mu, \log\tau, \theta_1, \dots, \theta_8)$.

    $\mu \sim N(0, 5)$, $\tau \sim$ half-Cauchy(5), $\theta_j \sim N(\mu, \tau)$,
    $y_j \sim N(\theta_j, \sigma_j)$. Given $\tau$ all variables are normal. One sum over a grid of
    $\log\tau$ therefore gives the evidence and exact samples.
    """

    def log_density(x):
        mu, log_tau, theta = x[0], x[1], x[2:]
        tau = jnp.exp(log_tau)
        prior = norm.logpdf(mu, 0, 5) + jnp.log(2.0) + cauchy.logpdf(tau, 0, 5) + log_tau
        return prior + (norm.logpdf(theta, mu, tau) + norm.logpdf(EFFECTS, theta, ERRORS)).sum()

    grid = np.linspace(-14.0, 8.0, 20_001)  # log tau
    tau = np.exp(grid)
    precision = 1 / (ERRORS**2 + tau[:, None] ** 2)  # (G, 8)
    mu_precision = 1 / 25 + precision.sum(1)
    mu_mean = precision @ EFFECTS / mu_precision
    log_evidence = 0.5 * (
        np.log(precision / (2 * np.pi)).sum(1)
        - precision @ EFFECTS**2
        + mu_mean**2 * mu_precision
        - np.log(25 * mu_precision)
    )
    log_prior = np.log(2 / (np.pi * 5)) - np.log1p((tau / 5) ** 2) + grid
    log_joint = log_evidence + log_prior + np.log(grid[1] - grid[0])
    log_z = np.logaddexp.reduce(log_joint)

    rng = np.random.default_rng(0)
    cell = rng.choice(len(grid), size, p=np.exp(log_joint - log_z))
    mu = mu_mean[cell] + rng.normal(size=size) / np.sqrt(mu_precision[cell])
    shares = tau[cell, None] ** 2 / (ERRORS**2 + tau[cell, None] ** 2)  # (N, 8)
    theta = mu[:, None] + shares * (EFFECTS - mu[:, None])
    theta += np.sqrt(shares) * ERRORS * rng.normal(size=(size, 8))
    reference = np.column_stack([mu, grid[cell], theta])
    labels = (r"$\theta_1$", r"$\log\,\tau$")
    return Posterior(log_density, reference, (2, 1), labels, log_z=float(log_z))


def logistic_regression(size: int) -> Posterior:
    """Breast cancer by logistic regression: 30 standardised features, N(0, 1) weights."""
    features, labels = load_breast_cancer(return_X_y=True)
    x = np.hstack([np.ones((len(features), 1)), StandardScaler().fit_transform(features)])
    x, sign = jnp.asarray(x, jnp.float32), jnp.asarray(2.0 * labels - 1, jnp.float32)

    def log_density(w):
        return norm.logpdf(w).sum() + jax.nn.log_sigmoid(sign * (x @ w)).sum()

    chains = hmc(log_density, x.shape[1], jax.random.key(0), num_draws=-(-size // 8))
    reference = chains.reshape(-1, x.shape[1])
    correlation = np.corrcoef(reference.T) - np.eye(x.shape[1])
    i, j = divmod(int(np.abs(correlation).argmax()), x.shape[1])
    names = (f"$w_{{{i}}}$", f"$w_{{{j}}}$")
    return Posterior(log_density, reference, (i, j), names, r_hat=float(split_r_hat(chains).max()))


def hmc(log_density, dim, key, *, num_draws, num_chains=8, warmup=500, num_leaps=8):
    """Draw `(num_chains, num_draws, dim)` by Hamiltonian Monte Carlo, preconditioned at the mode.

    Newton's method finds the mode. The curvature at the mode sets the metric. Step sizes are
    random.
    """
    gradient, mode = jax.jit(jax.grad(log_density)), jnp.zeros(dim)
    hessian = jax.jit(jax.hessian(log_density))
    for _ in range(20):
        mode -= jnp.linalg.solve(hessian(mode), gradient(mode))
    factor = jnp.linalg.inv(jnp.linalg.cholesky(-hessian(mode))).T  # factor @ factor.T = covariance

    def energy(z):
        return -log_density(mode + factor @ z)

    def step(z, key):
        p_key, size_key, accept_key = jax.random.split(key, 3)
        p = jax.random.normal(p_key, z.shape)
        size = jax.random.uniform(size_key, minval=0.2, maxval=0.5)

        def leap(_, state):
            z, p = state
            p -= size / 2 * jax.grad(energy)(z)
            z += size * p
            return z, p - size / 2 * jax.grad(energy)(z)

        new, q = jax.lax.fori_loop(0, num_leaps, leap, (z, p))
        gain = energy(z) - energy(new) + (p @ p - q @ q) / 2
        z = jnp.where(jnp.log(jax.random.uniform(accept_key)) < gain, new, z)
        return z, z

    @jax.jit
    @jax.vmap
    def chain(key):
        start_key, key = jax.random.split(key)
        start = 2 * jax.random.normal(start_key, (dim,))
        return jax.lax.scan(step, start, jax.random.split(key, warmup + num_draws))[1][warmup:]

    draws = chain(jax.random.split(key, num_chains))
    return np.asarray(mode + draws @ factor.T)


def split_r_hat(chains: np.ndarray) -> np.ndarray:
    """Return the potential scale reduction of each coordinate over half chains; 1 if mixed."""
    num_draws = chains.shape[1] // 2
    halves = np.concatenate([chains[:, :num_draws], chains[:, -num_draws:]])  # (2C, N / 2, D)
    within = halves.var(1, ddof=1).mean(0)
    between = num_draws * halves.mean(1).var(0, ddof=1)
    return np.sqrt(((num_draws - 1) / num_draws * within + between / num_draws) / within)


POSTERIORS = {f.__name__: f for f in (funnel, banana, eight_schools, logistic_regression)}
