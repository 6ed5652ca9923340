"""Simulation-based calibration: ranks of true parameters among samples of their posteriors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arrays import to_device
from afflow._tools.calls import make_typed
from afflow._tools.shapes import check_size
from afflow.inference.importance import check_arrays


class PosteriorEstimate(Protocol):
    """A conditional distribution of parameters given an observation, such as a `Flow`."""

    def sample(self, key: jax.Array, shape: int, x: jax.Array, /) -> Any:
        """Draw parameters `(S, *batch, D)` for observations `(*batch, ...)`."""
        ...

    def log_prob(self, theta: jax.Array, x: jax.Array, /) -> jax.Array:
        """Return log-densities in nats; the leading axes of `theta` and `x` broadcast."""
        ...


@dataclass(frozen=True)
class Ranks:
    """Ranks among posterior samples.

    Attributes:
        values: integers `(N, D)` from 0 to `num_samples`, for N observations and D statistics.
        num_samples: the number of posterior samples `S` for each observation.
    """

    values: np.ndarray
    num_samples: int


def compute_ranks(
    posterior: PosteriorEstimate,
    theta: jax.Array | np.ndarray,
    x: jax.Array | np.ndarray,
    *,
    key: jax.Array,
    num_samples: int,
    batch_size: int = 100,
) -> Ranks:
    r"""Compute the rank of each true parameter among samples of its posterior.

    $$r_{id} = \sum_{s=1}^S \big[\theta^{(s)}_{id} < \theta_{id}\big], \qquad
    \theta^{(s)}_i \sim q(\theta \mid x_i).$$

    If $q$ is the exact posterior and the pairs $(\theta_i, x_i)$ are draws of the prior and the
    simulator, then each rank is uniform on $0, \dots, S$. The converse is false: the prior in place
    of the posterior has uniform ranks too. A posterior that is too narrow has many ranks at both
    ends, and a posterior that is too wide has many in the middle (Talts et al. 2018,
    arXiv:1804.06788).

    Args:
        posterior: the estimate $q$, with the methods `sample` and `log_prob` of a conditional
            `Flow`.
        theta: true parameters `(N, D)`, draws of the prior.
        x: observations `(N, ...)` simulated from the parameters.
        key: a PRNG key.
        num_samples: the number of posterior samples $S$ for each observation.
        batch_size: the largest number of observations to draw samples for at a time.

    Raises:
        ValueError: for `theta` that is not `(N, D)`, for another number of observations, or for a
            posterior whose samples are NaN or of another shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), context_dim=3, rngs=nnx.Rngs(0))
        >>> x = jax.random.normal(jax.random.key(0), (100, 3))
        >>> theta = flow.sample(jax.random.key(1), (), x)  # so the flow is the exact posterior
        >>> ranks = afflow.sbi.compute_ranks(flow, theta, x, key=jax.random.key(2), num_samples=99)
        >>> ranks.values.shape, afflow.sbi.assess_uniformity(ranks).p_value > 1e-3
        ((100, 2), True)
    """
    options = {"num_samples": num_samples, "batch_size": batch_size}
    return rank_statistic(_get_coordinates, posterior, theta, x, key=key, **options)


def _get_coordinates(_, theta):
    return theta


def rank_statistic(
    statistic: Callable[..., jax.Array],
    posterior: PosteriorEstimate,
    theta: Any,
    x: Any,
    *shared: Any,
    key: jax.Array,
    num_samples: int,
    batch_size: int,
) -> Ranks:
    """Compute the rank of a statistic of each true parameter among samples of its posterior.

    `statistic(x, theta, *rows)` gets observations `(B, ...)`, parameters `(..., B, D)`, and the
    rows of `shared` arrays. It returns values `(..., B)` or `(..., B, K)`.
    """
    check_posterior(posterior)
    check_size("num_samples", num_samples)
    check_size("batch_size", batch_size)
    key, (theta, x) = make_typed(key), check_pairs(theta, x)
    counts = []
    for start, rows in _cut_minibatches(len(theta), batch_size):
        batch_theta, batch_x, *batch_shared = (array[rows] for array in (theta, x, *shared))
        samples = posterior.sample(jax.random.fold_in(key, start), num_samples, batch_x)
        check_arrays(samples, "rank the columns of an array")
        if samples.shape != (num_samples, *batch_theta.shape):
            raise ValueError(
                f"Expected samples of shape {(num_samples, *batch_theta.shape)} from the "
                f"posterior, got {samples.shape}."
            )
        truth = statistic(batch_x, batch_theta, *batch_shared)
        counts.append(_count_below(statistic(batch_x, samples, *batch_shared), truth))
    values = np.concatenate(counts)[: len(theta)]
    if (values < 0).any():
        bad = np.flatnonzero((values < 0).reshape(len(values), -1).any(1))
        raise ValueError(
            f"Expected a posterior without NaN, got NaN for {len(bad)} observations, the first at "
            f"row {bad[0]}."
        )
    return Ranks(values.reshape(len(theta), -1), num_samples)


@jax.jit
def _count_below(samples, truth):
    """Count the samples `(S, ...)` below the true values `(...)`; the count is -1 with NaN."""
    count = (samples < truth[None]).sum(0)
    return jnp.where(jnp.isnan(samples).any(0) | jnp.isnan(truth), -1, count)


def _cut_minibatches(size: int, largest: int) -> list[tuple[int, np.ndarray]]:
    """Return the start and the rows of minibatches of one size, so that one program serves all.

    The last minibatch continues with the first rows.
    """
    num = -(-size // largest)
    each = -(-size // num)
    return [(start, (start + np.arange(each)) % size) for start in range(0, size, each)]


def check_posterior(posterior: Any) -> None:
    """Raise `ValueError` unless a posterior can be sampled."""
    if not hasattr(posterior, "sample"):
        raise ValueError(
            f"Expected a posterior with the method sample, got {type(posterior).__name__}."
        )


def check_pairs(theta: Any, x: Any) -> tuple[jax.Array, jax.Array]:
    """Return parameters `(N, D)` and observations `(N, ...)`, or raise `ValueError`."""
    theta, x = to_device("theta", theta), to_device("x", x)
    if theta.ndim != 2 or x.ndim == 0 or len(theta) != len(x) or theta.size == 0:
        raise ValueError(
            f"Expected theta.shape (N, D) and x.shape (N, ...), got {theta.shape} and {x.shape}."
        )
    return theta, x
