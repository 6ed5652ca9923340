"""Scalar maps written from data to noise: their other direction, found numerically."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from afflow.bijector import Bijector

Increasing = Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]]
"""`g(x, params) -> (z, log dz/dx)`: a callable pytree, strictly increasing in the scalar `x`."""

_MAX_STEPS = 300


def forward_by_search(
    univariate: Bijector, z: jax.Array, params: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Return `forward_and_log_det` of an increasing univariate that writes its inverse only."""
    g = jax.tree_util.Partial(type(univariate).inverse_and_log_det, univariate)
    x = solve_monotone(g, z, params)
    return x, -g(x, params)[1]


@jax.custom_jvp
def solve_monotone(g: Increasing, z: jax.Array, params: Any) -> jax.Array:
    r"""Return the root $x$ of $g(x; \theta) = z$ on the real line, to float rounding.

    Newton steps, kept inside a bracket that starts as the whole line; a step that does
    not at least halve the one before gives way to a bisection, or to a step outwards of
    doubled length where one end is still infinite. Derivatives are those of the
    implicit function: $\dot x = (\dot z - \partial_\theta g\, \dot\theta) / g'(x)$.

    Args:
        g: `g(x, params)` returns its value and the log of its slope; onto the real line.
        z: scalar; NaN gives NaN.
        params: what else `g` depends on, any pytree.
    """
    z = z.astype(jax.eval_shape(g, z, params)[0].dtype)
    tol = 4 * jnp.finfo(z.dtype).eps

    def unfinished(state):
        _, _, x, step, count = state
        return (step > tol * (1 + jnp.abs(x))) & (count < _MAX_STEPS)

    def advance(state):
        low, high, x, last, count = state
        value, log_slope = g(x, params)
        low, high = jnp.where(value <= z, x, low), jnp.where(value >= z, x, high)
        new = x - (value - z) * jnp.exp(-log_slope)
        trusted = (low <= new) & (new <= high) & (jnp.abs(new - x) < last / 2)
        new = jnp.where(trusted, new, _between(low, high))
        new = jnp.where(jnp.isnan(value - z), jnp.nan, new)
        return low, high, new, jnp.abs(new - x), count + 1

    infinity = jnp.full_like(z, jnp.inf)
    start = (-infinity, infinity, z, infinity, 0)
    return jax.lax.while_loop(unfinished, advance, start)[2]


@solve_monotone.defjvp
def _solve_monotone_jvp(primals, tangents):
    (g, z, params), (d_g, d_z, d_params) = primals, tangents
    x = solve_monotone(g, z, params)
    (_, log_slope), (d_value, _) = jax.jvp(
        lambda g, params: g(x, params), (g, params), (d_g, d_params)
    )
    return x, (d_z - d_value) * jnp.exp(-log_slope)


def _between(low: jax.Array, high: jax.Array) -> jax.Array:
    """Return the middle of a bracket, or a point further out where one end is infinite."""
    above, below = low + (1 + jnp.abs(low)), high - (1 + jnp.abs(high))
    middle = low / 2 + high / 2
    return jnp.where(jnp.isinf(high), above, jnp.where(jnp.isinf(low), below, middle))
