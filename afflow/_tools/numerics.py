"""Sums of log-determinants, and arithmetic that keeps its digits."""

import jax
import jax.numpy as jnp


def widened(x: jax.Array) -> jax.Array:
    """Return `x` in float32 or wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def positive_softplus(raw: jax.Array) -> jax.Array:
    r"""Return $\log(1 + e^r)$, kept above zero where it would round to it."""
    return jax.nn.softplus(raw) + jnp.finfo(raw.dtype).tiny


def inverse_softplus(positive: jax.Array) -> jax.Array:
    r"""Return the $r$ with $\log(1 + e^r)$ equal to a positive number."""
    return positive + jnp.log(-jnp.expm1(-positive))


def total(log_dets: jax.Array) -> jax.Array:
    """Sum log-determinant terms in float32 or wider."""
    return jnp.sum(log_dets, dtype=jnp.promote_types(log_dets.dtype, jnp.float32))
