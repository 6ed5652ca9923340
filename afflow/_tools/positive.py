"""Positive numbers from real ones, for scales and diagonals; zero maps to one."""

import jax
import jax.numpy as jnp

from afflow._tools.bounds import bound_softly

_MAX_LOG = 7.0


def positive(s: jax.Array) -> jax.Array:
    r"""Return $e^\alpha$ with the smoothly bounded $\alpha = s / (1 + |s| / 7)$.

    The result lies between 0.0009 and 1100: it neither vanishes nor overflows.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow._tools.positive import positive
        >>> positive(jnp.zeros(())).item()
        1.0
    """
    return jnp.exp(bound_softly(s, _MAX_LOG))


def positive_inverse(scale: jax.Array) -> jax.Array:
    """Return the `s` with `positive(s)` equal to `scale`, or NaN if there is none."""
    alpha = jnp.log(scale)
    return jnp.where(jnp.abs(alpha) < _MAX_LOG, alpha / (1 - jnp.abs(alpha) / _MAX_LOG), jnp.nan)
