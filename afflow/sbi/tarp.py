"""TARP: tests of accuracy with random points, the coverage of balls around reference points."""

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arrays import to_device
from afflow._tools.calls import make_typed
from afflow.sbi.coverage import Coverage, find_coverage
from afflow.sbi.ranks import PosteriorEstimate, check_pairs, rank_statistic


def estimate_tarp_coverage(
    posterior: PosteriorEstimate,
    theta: jax.Array | np.ndarray,
    x: jax.Array | np.ndarray,
    *,
    key: jax.Array,
    num_samples: int,
    references: jax.Array | np.ndarray | None = None,
    num_levels: int = 21,
    level: float = 0.99,
    batch_size: int = 100,
) -> Coverage:
    r"""Estimate the coverage of balls around reference points, by samples alone.

    $$c(\alpha) = \frac1N \sum_{i=1}^N \big[\lVert \theta_i - \theta^r_i \rVert <
    \rho_\alpha(x_i, \theta^r_i)\big],$$

    where the ball of radius $\rho_\alpha$ around the reference point $\theta^r_i$ has probability
    $\alpha$ under $q(\theta \mid x_i)$. Distances are Euclidean, with each coordinate divided by
    its range in `theta`. The exact posterior has $c(\alpha) = \alpha$ on average, for any reference
    points that depend on $x$ alone (Lemos et al. 2023, arXiv:2302.03026).

    By default the reference points are uniform on the box that holds `theta`, and independent of
    `x`. With them the prior in place of the posterior has the exact coverage. Reference points that
    depend on `x`, a rough estimate of the parameters say, show this error.

    Args:
        posterior: the estimate $q$, with the method `sample` of a conditional `Flow`.
        theta: true parameters `(N, D)`, draws of the prior.
        x: observations `(N, ...)` simulated from the parameters.
        key: a PRNG key.
        num_samples: the number of posterior samples $S$ for each observation.
        references: reference points `(N, D)`, functions of the observations or random.
        num_levels: the largest number of levels; each is a multiple of $1 / (S + 1)$.
        level: the probability that a share is within its band under the exact posterior.
        batch_size: the largest number of observations to draw samples for at a time.

    Raises:
        ValueError: as `compute_ranks` does, for reference points of another shape, a coordinate
            that is constant in `theta`, or a `level` that is not between 0 and 1.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), context_dim=3, rngs=nnx.Rngs(0))
        >>> x = jax.random.normal(jax.random.key(0), (100, 3))
        >>> theta = flow.sample(jax.random.key(1), (), x)  # so the flow is the exact posterior
        >>> coverage = afflow.sbi.estimate_tarp_coverage(
        ...     flow, theta, x, key=jax.random.key(2), num_samples=99, num_levels=3
        ... )
        >>> coverage.levels.tolist(), bool(abs(coverage.values[1] - 0.5) < 0.2)
        ([0.0, 0.5, 1.0], True)
    """
    theta, x = check_pairs(theta, x)
    for_references, for_samples = jax.random.split(make_typed(key))
    ranges = _find_ranges(theta)
    if references is None:
        noise = jax.random.uniform(for_references, theta.shape, theta.dtype)
        references = theta.min(0, keepdims=True) + ranges[None] * noise
    references = to_device("references", references)
    if references.shape != theta.shape:
        raise ValueError(f"Expected references.shape {theta.shape}, got {references.shape}.")

    def find_distance(_, theta, references):
        return _measure(theta, references, ranges)

    options = {"num_samples": num_samples, "batch_size": batch_size}
    ranks = rank_statistic(
        find_distance, posterior, theta, x, references, key=for_samples, **options
    )
    return find_coverage(ranks, num_levels, level)


def _find_ranges(theta: jax.Array) -> jax.Array:
    """Return the range of each coordinate, or raise `ValueError` for one that is constant."""
    ranges = theta.max(0) - theta.min(0)
    if not (ranges > 0).all():
        raise ValueError(f"Expected coordinates of theta that vary, got ranges {ranges.tolist()}.")
    return ranges


@jax.jit
def _measure(theta, references, ranges):
    """Return the distances `(..., B)` of parameters `(..., B, D)` from references `(B, D)`."""
    references, ranges = (jnp.broadcast_to(a, theta.shape) for a in (references, ranges))
    return jnp.linalg.norm((theta - references) / ranges, axis=-1)
