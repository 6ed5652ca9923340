"""Uniformity of ranks: histograms, distribution functions with bands, and a test."""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc

from afflow._tools.arguments import check_instance
from afflow._tools.shapes import check_size
from afflow.sbi.bands import find_band, find_joint_band
from afflow.sbi.ranks import Ranks


@dataclass(frozen=True)
class RankHistogram:
    """The numbers of ranks in bins, and the band of each number under uniform ranks.

    Attributes:
        edges: `(K + 1,)`; bin k holds the ranks from `edges[k]` to below `edges[k + 1]`.
        counts: `(K, D)`.
        expected: the mean numbers under uniform ranks `(K,)`.
        lower: the least numbers within the band `(K,)`.
        upper: the largest numbers within the band `(K,)`.
    """

    edges: np.ndarray
    counts: np.ndarray
    expected: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class EcdfDifference:
    r"""The empirical distribution function of ranks minus the uniform one, with a joint band.

    Attributes:
        points: scaled ranks $z$ `(K,)`.
        values: $F(z) - z$ `(K, D)`.
        lower: the lower end of the band `(K,)`.
        upper: the upper end of the band `(K,)`.
    """

    points: np.ndarray
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class Uniformity:
    """A test that ranks are uniform.

    Attributes:
        statistics: the chi-square statistic of each statistic's ranks `(D,)`.
        p_values: the p-value of each statistic's ranks alone `(D,)`.
        p_value: the p-value of all D tests together, by Bonferroni's correction.
    """

    statistics: np.ndarray
    p_values: np.ndarray
    p_value: float


def bin_ranks(ranks: Ranks, *, num_bins: int | None = None, level: float = 0.99) -> RankHistogram:
    r"""Count ranks in bins, with the binomial band of each count under uniform ranks.

    A bin of $m$ of the $S + 1$ possible ranks has a count from
    $\mathrm{Binomial}(N, m / (S + 1))$ (Talts et al. 2018, arXiv:1804.06788, section 4.1). With
    many bins some counts are outside their bands by chance: `level` is the probability of each band
    alone.

    Args:
        ranks: the ranks.
        num_bins: the number of bins $K$, at most `S + 1`; by default one for every 20 observations,
            and at most 20.
        level: the probability that a count is within its band.

    Raises:
        ValueError: for a number of bins out of range, or a level that is not between 0 and 1.

    Example:
        >>> import afflow, numpy as np
        >>> ranks = afflow.sbi.Ranks(np.arange(100)[:, None], 99)
        >>> histogram = afflow.sbi.bin_ranks(ranks, num_bins=4)
        >>> histogram.counts[:, 0].tolist(), histogram.lower[0].item(), histogram.upper[0].item()
        ([25, 25, 25, 25], 14, 37)
    """
    check_instance("ranks", ranks, Ranks)
    num, possible = len(ranks.values), ranks.num_samples + 1
    num_bins = _choose_num_bins(num, possible) if num_bins is None else num_bins
    check_size("num_bins", num_bins)
    if num_bins > possible:
        raise ValueError(f"Expected num_bins of at most {possible} ranks, got {num_bins}.")
    edges = -(-np.arange(num_bins + 1) * possible // num_bins)
    counts = np.stack([np.histogram(column, edges)[0] for column in ranks.values.T], axis=-1)
    chances = np.diff(edges) / possible
    return RankHistogram(edges, counts, num * chances, *find_band(num, chances, level))


def _choose_num_bins(num: int, possible: int) -> int:
    """Return a number of bins from 2 to 20 with at least 20 of `num` ranks in each, if possible.

    A divisor of the number of possible ranks is preferred, since its bins are equally wide.
    """
    largest = min(max(num // 20, 2), 20, possible)
    divisors = [k for k in range(-(-largest // 2), largest + 1) if possible % k == 0]
    return max(divisors, default=largest)


def compare_ecdf(
    ranks: Ranks, *, num_points: int = 50, level: float = 0.99, seed: int = 0
) -> EcdfDifference:
    r"""Compare the empirical distribution function of ranks with the uniform one.

    $$F_d(z) - z, \qquad F_d(z) = \frac1N \sum_i \big[r_{id} < z (S + 1)\big].$$

    All values of one statistic are within the band with probability `level` under uniform ranks.
    The band is found by simulation (Sailynoja, Burkner and Vehtari 2021, arXiv:2103.10522).

    Args:
        ranks: the ranks.
        num_points: the largest number of points $z$; each is a multiple of $1 / (S + 1)$.
        level: the probability of the band.
        seed: the seed of the simulation.

    Raises:
        ValueError: for a level that is not between 0 and 1.

    Example:
        >>> import afflow, numpy as np
        >>> ranks = afflow.sbi.Ranks(np.arange(100)[:, None], 99)
        >>> bool(abs(afflow.sbi.compare_ecdf(ranks).values).max() < 1e-12)
        True
    """
    check_instance("ranks", ranks, Ranks)
    check_size("num_points", num_points)
    points = place_levels(ranks, num_points + 2)[1:-1]
    values = find_shares_below(ranks, points)
    lower, upper = find_joint_band(len(ranks.values), points, level, seed=seed)
    ends = (count / len(ranks.values) - points for count in (lower, upper))
    return EcdfDifference(points, values - points[:, None], *ends)


def place_levels(ranks: Ranks, num: int) -> np.ndarray:
    """Return about `num` multiples of `1 / (S + 1)` from 0 to 1, as equidistant as possible."""
    possible = ranks.num_samples + 1
    return np.unique(np.round(np.linspace(0, possible, num))) / possible


def find_shares_below(ranks: Ranks, levels: np.ndarray) -> np.ndarray:
    """Return the share of ranks below `level (S + 1)`, for each level and statistic: `(K, D)`."""
    limits = np.round(levels * (ranks.num_samples + 1))
    return (ranks.values[None] < limits[:, None, None]).mean(1)


def assess_uniformity(ranks: Ranks, *, num_bins: int | None = None) -> Uniformity:
    r"""Test that ranks are uniform, by Pearson's chi-square test of each statistic's histogram.

    $$\chi^2_d = \sum_{k=1}^K \frac{(n_{kd} - e_k)^2}{e_k}, \qquad
    p = \min\big(1, D \min_d p_d\big).$$

    A small p-value shows that the posterior is wrong. A large p-value does not show that it is
    right.

    Args:
        ranks: the ranks.
        num_bins: the number of bins $K$, at least 2; by default as in `bin_ranks`.

    Raises:
        ValueError: for a number of bins out of range.

    Example:
        >>> import afflow, numpy as np
        >>> low = np.random.default_rng(0).integers(0, 50, size=(200, 2))
        >>> bool(afflow.sbi.assess_uniformity(afflow.sbi.Ranks(low, 99)).p_value < 1e-6)
        True
    """
    if num_bins is not None:
        check_size("num_bins", num_bins, least=2)
    histogram = bin_ranks(ranks, num_bins=num_bins)
    expected = histogram.expected[:, None]
    statistics = ((histogram.counts - expected) ** 2 / expected).sum(0)
    p_values = chdtrc(len(expected) - 1, statistics)
    return Uniformity(statistics, p_values, min(1.0, float(p_values.min()) * len(p_values)))
