"""Posterior predictive checks: simulations from posterior samples beside the observation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_callable
from afflow._tools.arrays import to_device
from afflow._tools.calls import make_typed
from afflow._tools.shapes import check_size
from afflow.inference.importance import check_arrays
from afflow.sbi.ranks import PosteriorEstimate, check_posterior
from afflow.sbi.simulations import simulate_at


@dataclass(frozen=True)
class PosteriorPredictive:
    """Simulations from posterior samples at one observation.

    Attributes:
        theta: posterior samples `(S, D)`.
        draws: a simulation from each sample `(S, ...)`.
        observation: the observation `(...)`.
        share_below: the share of the draws below each coordinate of the observation `(...)`; a draw
            that equals the coordinate counts half.
    """

    theta: jax.Array
    draws: jax.Array
    observation: jax.Array
    share_below: jax.Array


def predict(
    posterior: PosteriorEstimate,
    simulator: Callable[[jax.Array, jax.Array], jax.Array],
    x: jax.Array | np.ndarray,
    *,
    key: jax.Array,
    num_samples: int,
    workers: int = 0,
) -> PosteriorPredictive:
    r"""Simulate from samples of the posterior at one observation, and compare.

    $$\theta^{(s)} \sim q(\theta \mid x), \qquad x^{(s)} \sim p(x \mid \theta^{(s)}), \qquad
    \text{share}_j = \frac1S \sum_{s=1}^S \big[x^{(s)}_j < x_j\big].$$

    A share near 0 or 1 shows a coordinate of the observation that the posterior cannot explain.
    The posterior has seen the observation, so the shares are not uniform, but nearer to a half
    (Gelman, Meng and Stern 1996). A share is NaN if a draw of its coordinate is NaN.

    Args:
        posterior: the estimate $q$, with the method `sample` of a conditional `Flow`.
        simulator: `simulator(key, theta)` returns one simulated observation for parameters `(D,)`.
            It is mapped over the samples by `jax.vmap` and compiled. With workers it is
            `simulator(rng, theta)`, as for `simulate`, and failed simulations are left out.
        x: the observation.
        key: a PRNG key.
        num_samples: the number of posterior samples $S$.
        workers: the number of processes for a Python function, as in `simulate`.

    Raises:
        ValueError: if the simulator returns another shape than the observation's.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), context_dim=2, rngs=nnx.Rngs(0))
        >>> def simulator(key, theta):
        ...     return theta + jax.random.normal(key, (2,))
        >>> result = afflow.sbi.predict(
        ...     flow, simulator, jnp.array([0.0, 9.0]), key=jax.random.key(0), num_samples=100
        ... )
        >>> result.draws.shape, result.share_below[1].item()
        ((100, 2), 1.0)
    """
    check_posterior(posterior)
    argument = "rng" if workers else "key"
    check_callable("simulator", simulator, f"lambda {argument}, theta: ...", 2)
    check_size("num_samples", num_samples)
    x = to_device("x", x)
    for_theta, for_draws = jax.random.split(make_typed(key))
    theta: Any = posterior.sample(for_theta, num_samples, x)
    check_arrays(theta, "let the simulator take an array")
    if workers:
        options = {"key": for_draws, "workers": workers, "progress": False}
        made = simulate_at(simulator, theta, **options)
        theta, draws = made.theta, made.x
    else:
        draws = jax.jit(jax.vmap(simulator))(jax.random.split(for_draws, num_samples), theta)
    if draws.shape != (len(theta), *x.shape):
        raise ValueError(
            f"Expected simulations of the observation's shape {x.shape}, got {draws.shape[1:]}."
        )
    return PosteriorPredictive(theta, draws, x, _find_share_below(draws, x))


@jax.jit
def _find_share_below(draws, x):
    share = (jnp.where(draws == x[None], 0.5, 0.0) + (draws < x[None])).mean(0)
    return jnp.where(jnp.isnan(draws).any(0) | jnp.isnan(x), jnp.nan, share)
