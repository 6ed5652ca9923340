"""Smooth bounds: log-scales that stay in range, and curves with straight tails."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def bound_softly(s: jax.Array, bound: float) -> jax.Array:
    """Return $s / (1 + |s|/c)$: the identity near zero, with absolute value below $c$."""
    return s / (1 + jnp.abs(s) / bound)


def compute_gains(num: int, dtype: jnp.dtype) -> jax.Array:
    """Return `num` distinct constants, geometric between 1/4 and 4.

    Equal components with equal gradients would stay equal. If parameter `k` acts through gain `k`,
    the components move apart, and zero parameters still make them equal.
    """
    return 4 ** ((2 * jnp.arange(num, dtype=dtype) + 1) / num - 1)


def linear_tails(
    curve: Callable[[jax.Array], tuple[jax.Array, jax.Array]], x: jax.Array, bound: float
) -> tuple[jax.Array, jax.Array]:
    """Evaluate `curve(x) -> (value, slope)` on `[-bound, bound]`, and its end tangents outside.

    Return the value and the log of the slope. The curve is never evaluated outside the interval.
    """
    inside = jnp.clip(x, -bound, bound)
    value, slope = curve(inside)
    return value + slope * (x - inside), jnp.log(slope)
