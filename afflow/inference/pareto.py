"""Pareto-smoothed importance sampling."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from afflow._tools.numerics import total
from afflow.inference.importance import check_log_weights


def pareto_k(log_weights: jax.Array) -> jax.Array:
    r"""Return the tail index $k$ of importance weights: moments of order below $1/k$ exist.

    A generalised Pareto distribution is fitted to the $\min(S/5, 3\sqrt{S})$ largest weights. If
    $k$ is below 0.5, the weights have finite variance. Below 0.7, estimates with `pareto_smoothed`
    weights converge at a practical rate. Above 0.7, the flow is too far from the target for
    importance sampling. Weights that are all equal have $k = -\infty$. Vehtari et al. 2024,
    arXiv:1507.02646.

    Args:
        log_weights: $\log w$, `(S, ...)`, up to a constant, `S` at least 25.

    Returns:
        One number `(...)` for each trailing index.

    Raises:
        ValueError: for fewer than 25 weights.

    Example:
        >>> import afflow, jax
        >>> log_weights = 0.8 * jax.random.exponential(jax.random.key(0), (100_000,))
        >>> bool(0.7 < afflow.inference.pareto_k(log_weights) < 0.9)
        True
    """
    return pareto_smoothed(log_weights)[1]


def pareto_smoothed(log_weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Replace the largest weights by the expected order statistics of the fitted tail.

    The smoothing bounds the variance of self-normalised estimates at the price of a small bias.
    Vehtari et al. 2024, arXiv:1507.02646.

    Args:
        log_weights: `(S, ...)`, `S` at least 25.

    Returns:
        Smoothed log-weights `(S, ...)`, and the `pareto_k` `(...)` of the log-weights passed in.

    Raises:
        ValueError: for fewer than 25 weights.

    Example:
        >>> import afflow, jax
        >>> log_weights = 2.0 * jax.random.normal(jax.random.key(0), (1000,))
        >>> smoothed, k = afflow.inference.pareto_smoothed(log_weights)
        >>> bool(smoothed.max() <= log_weights.max())
        True
    """
    log_weights = check_log_weights(log_weights)
    if len(log_weights) < 25:
        raise ValueError(f"Expected at least 25 log-weights, got {len(log_weights)}.")
    flat = log_weights.reshape(len(log_weights), -1)
    smoothed, k = _smooth_tails(flat)
    return smoothed.reshape(log_weights.shape), k.reshape(log_weights.shape[1:])


@jax.jit
@partial(jax.vmap, in_axes=1, out_axes=(1, 0))
def _smooth_tails(log_weights):
    size = math.ceil(min(len(log_weights) / 5, 3 * math.sqrt(len(log_weights))))
    order = jnp.argsort(log_weights)
    largest = log_weights[order[-1]]
    top = jnp.exp(log_weights[order[-size - 1 :]] - largest)  # (1 + M,)
    k, sigma = fit_generalized_pareto(top[1:] - top[0])
    k = jnp.where(top[-1] == top[0], -jnp.inf, k)  # equal weights have no tail
    p = (jnp.arange(size) + 0.5) / size
    quantiles = top[0] + sigma * jnp.expm1(-k * jnp.log1p(-p)) / k
    smoothed = largest + jnp.minimum(jnp.log(quantiles), 0)
    tail = jnp.where(jnp.isfinite(quantiles).all(), smoothed, log_weights[order[-size:]])
    return log_weights.at[order[-size:]].set(tail), k


def fit_generalized_pareto(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Fit shape $k$ and scale $\sigma$ of a generalised Pareto distribution.

    $$p(x) = \frac1\sigma \Big(1 + \frac{k x}{\sigma}\Big)^{-1/k - 1}$$

    With $\theta = -k / \sigma$ the likelihood is maximal over $k$ at
    $k(\theta) = \mathrm{mean} \log(1 - \theta x)$. The estimate of $\theta$ is the mean over a
    grid, weighted by the profile likelihood of $\theta$ (Zhang and Stephens 2009, Technometrics
    51:316). As in arXiv:1507.02646, a prior worth ten observations draws $k$ towards 0.5.

    Args:
        x: positive exceedances `(N,)`, in ascending order.

    Returns:
        `k` and `sigma`, scalars.
    """
    size = len(x)
    grid = 30 + math.isqrt(size)
    quartile = x[math.floor(size / 4 + 0.5) - 1]
    quartile = jnp.where(quartile == 0, x.mean(), quartile)  # values equal to the threshold
    j = jnp.arange(1, grid + 1, dtype=x.dtype)
    theta = 1 / x[-1] + (1 - jnp.sqrt(grid / (j - 0.5))) / (3 * quartile)  # (G,)
    k = jnp.log1p(-theta[:, None] * x[None]).mean(1)
    log_profile = size * (jnp.log(-theta / k) - k - 1)
    theta = total(jax.nn.softmax(log_profile) * theta)
    k = jnp.log1p(-theta * x).mean()
    return (size * k + 10 * 0.5) / (size + 10), -k / theta
