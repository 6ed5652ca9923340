"""The root of an increasing scalar function within a bracket, and its derivative."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Scalar = Callable[[jax.Array], jax.Array]
_MAX_STEPS = 200  # a bracket halves at least every other step


def find_root(f: Scalar, low: jax.Array, high: jax.Array) -> jax.Array:
    """Return the root of `f` in `[low, high]`, to rounding; `f` must be increasing.

    Newton's method, with bisection wherever a step leaves the bracket or does not halve
    the one before. Not differentiable: see `root`.
    """

    def unsettled(state):
        x, step, _, _, count = state
        tol = 4 * jnp.finfo(x.dtype).eps
        return (jnp.abs(step) > tol * (1 + jnp.abs(x))) & (count < _MAX_STEPS)

    def advance(state):
        x, step, low, high, count = state
        value, slope = jax.jvp(f, (x,), (jnp.ones_like(x),))
        low, high = jnp.where(value <= 0, x, low), jnp.where(value >= 0, x, high)
        newton = x - value / slope
        good = (newton >= low) & (newton <= high) & (2 * jnp.abs(newton - x) <= jnp.abs(step))
        new = jnp.where(good, newton, low + (high - low) / 2)
        return new, new - x, low, high, count + 1

    start = low + (high - low) / 2
    return jax.lax.while_loop(unsettled, advance, (start, 2 * (high - low), low, high, 0))[0]


def root(f: Scalar, low: jax.Array, high: jax.Array) -> jax.Array:
    """Return `find_root(f, low, high)`, differentiable in what `f` closes over.

    By the implicit function theorem, in forward and reverse mode.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from afflow.root import root
        >>> def cube_root(t):
        ...     return root(lambda x: x**3 - t, jnp.zeros(()), jnp.full((), 8.0))
        >>> round(cube_root(8.0).item(), 4), round(jax.grad(cube_root)(8.0).item(), 4)
        (2.0, 0.0833)
    """

    def solve(f, _):
        return find_root(f, low, high)

    return jax.lax.custom_root(f, low, solve, lambda g, y: y / g(jnp.ones_like(y)))
