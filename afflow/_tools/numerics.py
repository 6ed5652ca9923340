"""Sums of log-determinants, and arithmetic without loss of digits."""

import jax
import jax.numpy as jnp


def widened(x: jax.Array) -> jax.Array:
    """Return `x` in float32 or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def positive_softplus(raw: jax.Array) -> jax.Array:
    r"""Return $\log(1 + e^r)$, plus the smallest normal number to stay above zero."""
    return jax.nn.softplus(raw) + jnp.finfo(raw.dtype).tiny


def inverse_softplus(positive: jax.Array) -> jax.Array:
    r"""Return the $r$ with $\log(1 + e^r)$ equal to `positive`."""
    return positive + jnp.log(-jnp.expm1(-positive))


def total(log_dets: jax.Array) -> jax.Array:
    """Sum log-determinant terms in float32 or wider."""
    return jnp.sum(log_dets, dtype=jnp.promote_types(log_dets.dtype, jnp.float32))
