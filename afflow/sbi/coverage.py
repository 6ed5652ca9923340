"""Expected coverage: how often the regions of highest posterior density hold the parameters."""

from dataclasses import dataclass

import jax
import numpy as np

from afflow.sbi.bands import find_band
from afflow.sbi.ranks import PosteriorEstimate, Ranks, rank_statistic
from afflow.sbi.uniformity import find_shares_below, place_levels


@dataclass(frozen=True)
class Coverage:
    """The share of true parameters within credible regions, against the regions' probability.

    Attributes:
        levels: probabilities of the regions `(K,)`, from 0 to 1.
        values: shares of true parameters within the regions `(K,)`.
        lower: the lower end of the binomial band of each share under the exact posterior `(K,)`.
        upper: the upper end of the band `(K,)`.
        ranks: the ranks `(N, 1)` behind the shares, for `assess_uniformity` and `compare_ecdf`.
    """

    levels: np.ndarray
    values: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    ranks: Ranks


def estimate_coverage(
    posterior: PosteriorEstimate,
    theta: jax.Array | np.ndarray,
    x: jax.Array | np.ndarray,
    *,
    key: jax.Array,
    num_samples: int,
    num_levels: int = 21,
    level: float = 0.99,
    batch_size: int = 100,
) -> Coverage:
    r"""Estimate the coverage of a posterior's regions of highest density.

    $$c(\alpha) = \frac1N \sum_{i=1}^N \big[\theta_i \in R_\alpha(x_i)\big],$$

    where $R_\alpha(x)$ is the smallest region with probability $\alpha$ under $q(\theta \mid x)$.
    The parameter is within the region if fewer than $\alpha (S + 1)$ of the $S$ posterior samples
    have a higher density. The exact posterior has $c(\alpha) = \alpha$ on average. A coverage below
    the level shows a posterior that is too narrow, and a coverage above it one that is too wide
    (Hermans et al. 2022, arXiv:2110.06581; Deistler et al. 2022, arXiv:2210.04815). The prior in
    place of the posterior has the exact coverage too.

    Args:
        posterior: the estimate $q$, with the methods `sample` and `log_prob` of a conditional
            `Flow`.
        theta: true parameters `(N, D)`, draws of the prior.
        x: observations `(N, ...)` simulated from the parameters.
        key: a PRNG key.
        num_samples: the number of posterior samples $S$ for each observation.
        num_levels: the largest number of levels; each is a multiple of $1 / (S + 1)$.
        level: the probability that a share is within its band under the exact posterior.
        batch_size: the largest number of observations to draw samples for at a time.

    Raises:
        ValueError: as `compute_ranks` does, for log-densities that are NaN, or for a `level` that
            is not between 0 and 1.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), context_dim=3, rngs=nnx.Rngs(0))
        >>> x = jax.random.normal(jax.random.key(0), (100, 3))
        >>> theta = flow.sample(jax.random.key(1), (), x)  # so the flow is the exact posterior
        >>> coverage = afflow.sbi.estimate_coverage(
        ...     flow, theta, x, key=jax.random.key(2), num_samples=99, num_levels=3
        ... )
        >>> coverage.levels.tolist(), bool(abs(coverage.values[1] - 0.5) < 0.2)
        ([0.0, 0.5, 1.0], True)
    """

    def find_negative_density(x, theta):
        return -posterior.log_prob(theta, x)

    options = {"num_samples": num_samples, "batch_size": batch_size}
    ranks = rank_statistic(find_negative_density, posterior, theta, x, key=key, **options)
    return find_coverage(ranks, num_levels, level)


def find_coverage(ranks: Ranks, num_levels: int, level: float) -> Coverage:
    """Return the coverage of regions that hold a parameter whose rank is below `level (S + 1)`."""
    num, levels = len(ranks.values), place_levels(ranks, num_levels)
    lower, upper = find_band(num, levels, level)
    values = find_shares_below(ranks, levels)[:, 0]
    return Coverage(levels, values, lower / num, upper / num, ranks)
