"""Importance weights of a flow's samples for a target density, and diagnostics of the weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_callable, check_methods
from afflow._tools.arrays import real_array
from afflow._tools.numerics import widen
from afflow._tools.shapes import check_size
from afflow.models.flow import Flow

LogDensity = Callable[..., jax.Array]


class Estimate(NamedTuple):
    """A Monte Carlo estimate with its standard error."""

    value: jax.Array
    standard_error: jax.Array


def importance_weights(
    flow: Flow,
    log_density: LogDensity,
    *,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    r"""Draw samples of a flow and compute their log-weights for an unnormalised density.

    $$x_i \sim q, \qquad \log w_i = \log \tilde p(x_i) - \log q(x_i).$$

    The weights depend on the target only where the flow has samples. If the flow misses a mode
    entirely, the weights do not show it, however good they look.

    Args:
        flow: the proposal $q$.
        log_density: $\log \tilde p$ of one event: `log_density(x)`, or `log_density(x, context)`
            for a flow with context.
        key: a PRNG key.
        num_samples: the number of samples `S` for each context.
        context: `(*batch, *context_shape)`.

    Returns:
        Samples `(S, *batch, *event_shape)` and log-weights `(S, *batch)`.

    Raises:
        ValueError: if `flow` is not a flow, `log_density` is not a function or does not return a
            scalar, or the samples are a table with names.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> x, log_weights = afflow.importance_weights(
        ...     flow, lambda x: -0.5 * x @ x, key=jax.random.key(0), num_samples=100
        ... )
        >>> x.shape, round(log_weights.mean().item(), 4)  # log(2 pi)
        ((100, 2), 1.8379)
    """
    check_methods("flow", flow, "sample_and_log_prob")
    check_size("num_samples", num_samples)
    check_callable("log_density", log_density, "lambda x: -(x**2).sum() / 2")
    x, log_q = flow.sample_and_log_prob(key, num_samples, context)
    return x, target_log_density(flow, log_density, x, context) - log_q


def check_arrays(samples: Any, mend: str) -> None:
    """Raise `ValueError` if the samples are a table with names; the message suggests `mend`."""
    if not isinstance(samples, jax.Array | np.ndarray):
        raise ValueError(f"Expected samples that are arrays, got a table with names: {mend}.")


def target_log_density(
    flow: Flow, log_density: LogDensity, x: jax.Array, context: jax.Array | None
) -> jax.Array:
    """Return the log-density of each of the samples `x` `(S, *batch, *event_shape)` of a flow.

    Raises:
        ValueError: if `log_density` does not return a scalar, or `x` is a table with names.
    """
    check_arrays(x, "weigh them yourself, by log_density(samples) - log_prob")
    f, lead = log_density, x.ndim - len(flow.event_shape)
    shape = flow.context_shape
    inner = 0 if context is None or shape is None else context.ndim - len(shape)
    for axis in range(lead):
        f = jax.vmap(f, in_axes=0 if context is None else (0, 0 if axis < inner else None))
    out = f(x) if context is None else f(x, context)
    if out.shape != x.shape[:lead]:
        raise ValueError(
            f"Expected log_density to return a scalar for one event, got shape "
            f"{out.shape[lead:]}: sum over its terms."
        )
    return out


def effective_sample_size(log_weights: jax.Array) -> jax.Array:
    r"""Return the effective sample size of importance weights, by Kish's formula.

    $$\mathrm{ESS} = \frac{(\sum_i w_i)^2}{\sum_i w_i^2} \in [1, S].$$

    Args:
        log_weights: $\log w$, `(S, ...)`, up to a constant.

    Returns:
        One number `(...)` for each trailing index.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.inference.effective_sample_size(jnp.full(100, 3.0)).item(), 3)
        100.0
    """
    return _count_effective(check_log_weights(log_weights))


@jax.jit
def _count_effective(log_weights: jax.Array) -> jax.Array:
    log_weights = log_weights - _find_peak(log_weights)
    first, second = (jax.nn.logsumexp(n * log_weights, axis=0) for n in (1, 2))
    return jnp.exp(2 * first - second)


def _find_peak(log_weights: jax.Array) -> jax.Array:
    """Return the largest log-weight over samples, or 0 if it is not finite."""
    peak = jnp.max(log_weights, axis=0, keepdims=True)
    return jnp.where(jnp.isfinite(peak), peak, 0.0)


def elbo(log_weights: jax.Array) -> Estimate:
    r"""Estimate the evidence lower bound, $\mathbb{E}_q[\log w] \le \log Z$, in nats.

    Args:
        log_weights: $\log w$, `(S, ...)`, `S` at least 2.

    Returns:
        The mean over the samples and its standard error, each `(...)`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> bound = afflow.inference.elbo(jnp.array([1.0, 2.0, 3.0, 2.0]))
        >>> bound.value.item(), round(bound.standard_error.item(), 4)
        (2.0, 0.4082)
    """
    return _average(check_log_weights(log_weights))


@jax.jit
def _average(log_weights: jax.Array) -> Estimate:
    deviation = jnp.std(log_weights, axis=0, ddof=1)
    return Estimate(log_weights.mean(0), deviation / math.sqrt(len(log_weights)))


def log_evidence(log_weights: jax.Array) -> Estimate:
    r"""Estimate $\log Z = \log \mathbb{E}_q[w]$, in nats, with its standard error.

    The standard error is of first order, $\sqrt{1/\mathrm{ESS} - 1/S}$. Trust it if `pareto_k` is
    below 0.7. The estimate is itself a lower bound on average (Burda et al. 2016,
    arXiv:1509.00519).

    Args:
        log_weights: $\log w$, `(S, ...)`.

    Returns:
        The estimate and its standard error, each `(...)`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> log_weights = jnp.log(jnp.array([1.0, 3.0]))
        >>> round(afflow.inference.log_evidence(log_weights).value.item(), 4)  # log 2
        0.6931
    """
    return _average_exp(check_log_weights(log_weights))


@jax.jit
def _average_exp(log_weights: jax.Array) -> Estimate:
    size = len(log_weights)
    value = jax.nn.logsumexp(log_weights, axis=0) - math.log(size)
    spread = 1 / _count_effective(log_weights) - 1 / size
    return Estimate(value, jnp.sqrt(jnp.maximum(spread, 0)))


def check_log_weights(log_weights: jax.Array) -> jax.Array:
    """Return log-weights `(S, ...)` in float32 or wider.

    Raises:
        ValueError: if there are no log-weights, or they are not numbers.
    """
    log_weights = jnp.asarray(real_array("log_weights", log_weights))
    if log_weights.ndim == 0 or len(log_weights) == 0:
        raise ValueError(f"Expected log_weights (S, ...), got shape {log_weights.shape}.")
    return widen(log_weights)
