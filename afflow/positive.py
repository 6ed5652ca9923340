"""Positive numbers from free ones: scales and diagonals of which zero means one."""

import math

import jax
import jax.numpy as jnp

LEAST = 1e-4
_SHIFT = math.log(math.expm1(1 - LEAST))


def positive(s: jax.Array) -> jax.Array:
    r"""Return $\epsilon + \log(1 + e^{s + c})$, with $c$ such that zero gives one.

    Above $\epsilon = 10^{-4}$, and growing no faster than `s`: it neither vanishes nor
    overflows where a bare exponential would.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.positive import positive
        >>> round(positive(jnp.zeros(())).item(), 6)
        1.0
    """
    return LEAST + jax.nn.softplus(s + _SHIFT)


def positive_inverse(scale: jax.Array) -> jax.Array:
    """Return the `s` of which `positive(s)` is `scale`, above 1e-4."""
    t = scale - LEAST
    return t + jnp.log(-jnp.expm1(-t)) - _SHIFT
