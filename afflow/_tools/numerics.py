"""Sums of log-determinants and of probabilities, and arithmetic without loss of digits."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def widen(x: jax.Array) -> jax.Array:
    """Return `x` in float32 or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def softplus_above_zero(raw: jax.Array) -> jax.Array:
    r"""Return $\log(1 + e^r)$, plus the smallest normal number to stay above zero."""
    return jax.nn.softplus(raw) + jnp.finfo(raw.dtype).tiny


def inverse_softplus(positive: jax.Array) -> jax.Array:
    r"""Return the $r$ with $\log(1 + e^r)$ equal to `positive`."""
    return positive + jnp.log(-jnp.expm1(-positive))


def stop_beyond(x: jax.Array, power: float) -> jax.Array:
    """Return `x`, without a gradient beyond the float type's largest number to the `power`."""
    far = jnp.abs(x) > float(jnp.finfo(x.dtype).max) ** power
    return jnp.where(far, jax.lax.stop_gradient(x), x)


@jax.custom_jvp
def times_exp(x: jax.Array, a: jax.Array) -> jax.Array:
    r"""Return $x e^a$, whose derivative by `a` is the product itself.

    Reverse mode would multiply a cotangent by `x` before $e^a$, which overflows far out.
    """
    return x * jnp.exp(a)


@times_exp.defjvp
def _times_exp_jvp(primals, tangents):
    (x, a), (d_x, d_a) = primals, tangents
    y = times_exp(x, a)
    return y, jnp.exp(a) * d_x + y * d_a


def total(log_dets: jax.Array) -> jax.Array:
    """Sum log-determinant terms in float32 or wider."""
    return jnp.sum(log_dets, dtype=jnp.promote_types(log_dets.dtype, jnp.float32))


def at_finite(log_prob: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Return `log_prob(x)` of one event, or minus infinity if a coordinate is infinite.

    The gradient is finite there. NaN stays NaN.
    """
    infinite = jnp.isinf(x).any() & ~jnp.isnan(x).any()
    value = log_prob(jnp.where(infinite, jnp.zeros_like(x), x))
    return jnp.where(infinite & ~jnp.isnan(value), -jnp.inf, value)


def log_total(a: jax.Array, axis: int = 0) -> jax.Array:
    r"""Return $\log \sum_i e^{a_i}$ over an axis. A sum of zeros has derivatives of zero."""
    nowhere = jnp.isneginf(a).all(axis)
    a = jnp.where(jnp.expand_dims(nowhere, axis), 0, a)
    return jnp.where(nowhere, -jnp.inf, jax.nn.logsumexp(a, axis=axis))


def log_mean_exp(a: jax.Array, axis: int = 0) -> jax.Array:
    r"""Return $\log \frac1n \sum_i e^{a_i}$ over the `n` entries of an axis, as `log_total`."""
    return log_total(a, axis) - math.log(a.shape[axis])


@jax.custom_jvp
def log_sum_exp(a: jax.Array) -> jax.Array:
    r"""Return $\log\sum_k e^{a_k}$ of a vector, with an accurate second derivative.

    The second derivative is a variance, $\sum_k q_k \dot a_k (\dot a_k - \sum_j q_j \dot a_j)$ with
    the softmax $q$. `jax.nn.logsumexp` computes the variance as a difference of two squares. Far
    out, the difference has no correct digit. The derivative of a sum of zeros has equal weights.
    """
    return jax.nn.logsumexp(a)


@log_sum_exp.defjvp
def _log_sum_exp_jvp(primals, tangents):
    (a,), (d_a,) = primals, tangents
    weights = jax.nn.softmax(jnp.maximum(a, jnp.finfo(a.dtype).min))
    return log_sum_exp(a), jnp.sum(weights * d_a)


@jax.custom_jvp
def normalize(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Return $a_k - t$ and $t = \log\sum_k e^{a_k}$, with accurate second derivatives."""
    most = jnp.max(a)
    apart = a - most
    total = jnp.log(jnp.sum(jnp.exp(apart)))
    return apart - total, most + total


@normalize.defjvp
def _normalize_jvp(primals, tangents):
    log_weights, log_total = normalize(*primals)
    mean = jnp.sum(jnp.exp(log_weights) * tangents[0])
    return (log_weights, log_total), (tangents[0] - mean, mean)
