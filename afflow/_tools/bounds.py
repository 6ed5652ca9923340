"""Smooth bounds: log-scales that stay in range, curves that go on as straight lines."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def soft_bound(s: jax.Array, bound: float) -> jax.Array:
    r"""Return $s / (1 + |s|/c)$: the identity near zero, bounded by $c$ in size."""
    return s / (1 + jnp.abs(s) / bound)


def gains(num: int, dtype: jnp.dtype) -> jax.Array:
    """Return `num` distinct constants, geometric between 1/4 and 4.

    Equal components that get equal gradients would never part. Where parameter `k` acts
    through gain `k`, they do, and zeros still make the components equal.
    """
    return 4 ** ((2 * jnp.arange(num, dtype=dtype) + 1) / num - 1)


def linear_tails(
    curve: Callable[[jax.Array], tuple[jax.Array, jax.Array]], x: jax.Array, bound: float
) -> tuple[jax.Array, jax.Array]:
    """Follow `curve(x) -> (value, slope)` on `[-bound, bound]` and its end tangents beyond.

    Returns the value and the log of the slope. The curve is evaluated inside only.
    """
    inside = jnp.clip(x, -bound, bound)
    value, slope = curve(inside)
    return value + slope * (x - inside), jnp.log(slope)
