"""Binomial bands: ranges of counts among N observations with known probabilities."""

import numpy as np
from scipy.special import bdtr, bdtrc

from afflow._tools.arguments import check_number


def find_band(num: int, probabilities: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the least and the largest count of a central interval, for each probability alone.

    A count $n \sim \mathrm{Binomial}(N, p)$ is in the interval with a probability of at least
    `level`.

    Args:
        num: the number of observations $N$.
        probabilities: $p$, `(K,)`.
        level: the probability of the interval, between 0 and 1.
    """
    check_level(level)
    return _cut(_find_tails(num, probabilities), (1 - level) / 2)


def find_joint_band(
    num: int, probabilities: np.ndarray, level: float, *, seed: int = 0, num_draws: int = 10_000
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the least and the largest counts of a band for all cumulative counts together.

    The band of $N F(z_k)$, where $F$ is the empirical distribution function of $N$ uniform values,
    is at each $z_k$ the central interval of $\mathrm{Binomial}(N, z_k)$ of one probability
    $1 - \gamma$. The number $\gamma$ is chosen by simulation so that all the counts are within the
    band with probability `level` (Sailynoja, Burkner and Vehtari 2021, arXiv:2103.10522,
    algorithm 1).

    Args:
        num: the number of observations $N$.
        probabilities: the points $z$ `(K,)`, increasing, between 0 and 1.
        level: the probability of the band, between 0 and 1.
        seed: the seed of the simulations.
        num_draws: the number of simulations.
    """
    check_level(level)
    steps = np.diff(probabilities, prepend=0.0, append=1.0)
    draws = np.random.default_rng(seed).multinomial(num, steps, num_draws)
    counts = draws.cumsum(1)[:, :-1]  # (num_draws, K)
    tails = _find_tails(num, probabilities)
    rarest = np.take_along_axis(tails, counts, axis=0).min(1)  # (num_draws,)
    return _cut(tails, np.quantile(rarest, 1 - level, method="lower"))


def _find_tails(num: int, probabilities: np.ndarray) -> np.ndarray:
    """Return the smaller tail probability of each count from 0 to N: `(N + 1, K)`.

    The tails of a count are the probabilities of this count or fewer, and of this count or more.
    """
    counts = np.arange(num + 1)[:, None]
    return np.minimum(bdtr(counts, num, probabilities), bdtrc(counts - 1, num, probabilities))


def _cut(tails: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest count whose tail probability is at least `least`."""
    within = tails >= least
    return within.argmax(0), len(tails) - 1 - within[::-1].argmax(0)


def check_level(level: float) -> None:
    """Raise `ValueError` unless `level` is between 0 and 1."""
    check_number("level", level, lambda number: 0 < number < 1, "> 0 and < 1")
