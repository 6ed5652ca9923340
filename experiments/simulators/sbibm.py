"""Four tasks of the benchmark sbibm, with its observations and reference posteriors.

Lueckmann et al. 2021, arXiv:2101.04653. The mixture is as in sbibm 1.1: one component is drawn for
both coordinates.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import multivariate_normal, norm

import afflow

OBSERVATIONS = range(1, 11)
WIDE, NARROW = 1.0, 0.1  # standard deviations of the two components of the mixture
OFFSET, RADIUS, THICKNESS = 0.25, 0.1, 0.01  # of the moons
TINY = 1e-6  # added to the variances of SLCP
VARIANCE = 0.1  # of the prior and of the noise of the linear task


@dataclass(frozen=True)
class Task:
    """A prior, a simulator `(key, theta)`, and its log-likelihood `(theta, x)`."""

    prior: afflow.Flow
    simulator: Callable[[jax.Array, jax.Array], jax.Array]
    log_likelihood: Callable[[jax.Array, jax.Array], jax.Array]


def cube(dim: int, end: float) -> afflow.Flow:
    """Return the uniform prior between `-end` and `end` in every coordinate."""
    return afflow.sbi.box(np.full(dim, -end), np.full(dim, end))


def gaussian_linear() -> Task:
    """Return ten means with a normal prior, each observed once with normal noise."""
    std = math.sqrt(VARIANCE)

    def simulator(key, theta):
        return theta + std * jax.random.normal(key, theta.shape)

    def log_likelihood(theta, x):
        return norm.logpdf(x, theta, std).sum()

    prior = afflow.sbi.gaussian(np.zeros(10), np.full(10, std))
    return Task(prior, simulator, log_likelihood)


def gaussian_mixture() -> Task:
    """Return the common mean of a wide and a narrow normal in the plane."""

    def simulator(key, theta):
        which_key, key = jax.random.split(key)
        std = jnp.where(jax.random.bernoulli(which_key), WIDE, NARROW)
        return theta + std * jax.random.normal(key, theta.shape)

    def log_likelihood(theta, x):
        parts = jnp.stack([norm.logpdf(x, theta, std).sum() for std in (WIDE, NARROW)])
        return jax.nn.logsumexp(parts) - math.log(2)

    return Task(cube(2, 10.0), simulator, log_likelihood)


def two_moons() -> Task:
    """Return a noisy half-circle whose centre depends on the parameters; two moons fit."""

    def find_centre(theta):
        total, difference = theta[0] + theta[1], theta[1] - theta[0]
        return jnp.stack([OFFSET - jnp.abs(total) / math.sqrt(2), difference / math.sqrt(2)])

    def simulator(key, theta):
        angle_key, radius_key = jax.random.split(key)
        angle = jax.random.uniform(angle_key, (), minval=-math.pi / 2, maxval=math.pi / 2)
        radius = RADIUS + THICKNESS * jax.random.normal(radius_key)
        return find_centre(theta) + radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def log_likelihood(theta, x):
        across, up = x - find_centre(theta)
        radius = jnp.hypot(across, up)
        log_prob = norm.logpdf(radius, RADIUS, THICKNESS) - jnp.log(math.pi * radius)
        return jnp.where(across < 0, -jnp.inf, log_prob)

    return Task(cube(2, 1.0), simulator, log_likelihood)


def slcp() -> Task:
    """Return four draws of a normal in the plane, with five parameters ("simple likelihood")."""

    def find_moments(theta):
        first, second = theta[2] ** 2, theta[3] ** 2
        both = jnp.tanh(theta[4]) * first * second
        rows = [jnp.stack([first**2 + TINY, both]), jnp.stack([both, second**2 + TINY])]
        return theta[:2], jnp.stack(rows)

    def simulator(key, theta):
        return jax.random.multivariate_normal(key, *find_moments(theta), (4,)).reshape(8)

    def log_likelihood(theta, x):
        mean, covariance = find_moments(theta)
        log_density = jax.vmap(multivariate_normal.logpdf, (0, None, None))
        return log_density(x.reshape(4, 2), mean, covariance).sum()

    return Task(cube(5, 3.0), simulator, log_likelihood)


TASKS: dict[str, Callable[[], Task]] = {
    "two_moons": two_moons,
    "gaussian_mixture": gaussian_mixture,
    "gaussian_linear": gaussian_linear,
    "slcp": slcp,
}


def read_observation(folder: Path, task: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an observation `(K,)` and the reference samples of its posterior `(10000, D)`.

    Args:
        folder: the folder of the data sets.
        task: the name of a task.
        number: the number of the observation, from 1 to 10.

    Raises:
        FileNotFoundError: if the folder does not hold the files.
    """
    name = f"num_observation_{number}"
    own, original = folder / "sbibm" / task, folder / "sbibm" / "tasks" / task / "files"
    home = next((place / name for place in (own, original) if (place / name).exists()), None)
    if home is None:
        raise FileNotFoundError(
            f"Expected {own / name}: copy the folder sbibm of the repository sbi-benchmark/sbibm, "
            f"version 1.1 or later, to {folder}."
        )
    names = "observation.csv", "reference_posterior_samples.csv.bz2"
    x, theta = (np.loadtxt(home / name, delimiter=",", skiprows=1, ndmin=2) for name in names)
    return x[0], theta
