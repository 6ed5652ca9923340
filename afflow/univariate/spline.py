"""Rational-quadratic splines: monotone, smooth, and inverted in closed form."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from afflow.bijector import Bijector


class RationalQuadraticSpline(Bijector):
    r"""A monotone rational-quadratic spline on $[-B, B]$ with identity tails.

    In bin $k$ of width $w$ and height $h$, with $s = h / w$, slopes $\delta_k$ at the knots
    $(x_k, y_k)$ and $\xi = (x - x_k) / w$,

    $$g(x) = y_k + \frac{h\,(s\,\xi^2 + \delta_k\,\xi(1 - \xi))}
    {s + (\delta_{k+1} + \delta_k - 2s)\,\xi(1 - \xi)}.$$

    `inverse` (data to noise) is $g$, `forward` the root of a quadratic. The parameters are
    `num_bins` widths and heights each, through a softmax, and `num_bins - 1` inner slopes,
    through a softplus; zeros give the identity.

    Durkan et al. 2019, arXiv:1906.04032, eqs. 4-8.

    Args:
        num_bins: bins `K`; the parameters are `3 K - 1`.
        bound: half-width `B` of the interval, in units of the input.
        min_bin: smallest width and height of a bin, as a fraction of the interval.
        min_slope: smallest slope at a knot.

    Raises:
        ValueError: for fewer than two bins, a bound that is not positive, or minima that leave
            no room.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> spline = afflow.RationalQuadraticSpline(num_bins=4)
        >>> round(spline.inverse(jnp.array(1.5), jnp.zeros(11)).item(), 4)
        1.5
    """

    def __init__(
        self,
        num_bins: int = 8,
        bound: float = 5.0,
        *,
        min_bin: float = 1e-3,
        min_slope: float = 1e-3,
    ):
        check_spline(num_bins, bound, min_bin, min_slope)
        self.num_bins = num_bins
        self.bound = float(bound)
        self.min_bin = min_bin
        self.min_slope = min_slope
        self.event_shape = ()
        self.context_shape = (3 * num_bins - 1,)

    def forward_and_log_det(self, x, context=None):
        return self._inside(unbend, x, context)

    def inverse_and_log_det(self, y, context=None):
        return self._inside(bend, y, context)

    def _inside(self, direction, x, params):
        """Apply the spline inside the interval; outside it is the identity."""
        inside = jnp.abs(x) < self.bound
        ends = jnp.ones((1,), params.dtype)
        inner = slopes(params[2 * self.num_bins :], self.min_slope)
        delta = jnp.concatenate([ends, inner, ends])
        y, log_det = direction(jnp.where(inside, x, 0.0), self._knots(params), delta)
        return jnp.where(inside, y, x), jnp.where(inside, log_det, 0.0)

    def _knots(self, params):
        size = self.num_bins
        parts = params[:size], params[size : 2 * size]
        return tuple(knots(part, self.bound, self.min_bin) for part in parts)


class CircularSpline(Bijector):
    r"""A rational-quadratic spline of the circle, slopes matched where it closes.

    The circle is $[-B, B)$ with its ends joined. Beyond, the map repeats itself,
    $g(x + 2B) = g(x) + 2B$, so that it is smooth and invertible on the whole line; on the
    circle it needs a base there, as `Uniform(dim, -B, B)`. It keeps the point $-B$ where it
    is: shift the circle between layers to move that too.

    Rezende et al. 2020, arXiv:2002.02428.

    Args:
        num_bins: bins `K`; the parameters are `3 K`, of which zeros give the identity.
        bound: half of the period; by default an angle in radians.
        min_bin: smallest width and height of a bin, as a fraction of the period.
        min_slope: smallest slope at a knot.

    Raises:
        ValueError: as for `RationalQuadraticSpline`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> spline = afflow.CircularSpline(num_bins=4)
        >>> round(spline.forward(jnp.array(3.0), jnp.zeros(12)).item(), 4)
        3.0
    """

    def __init__(
        self,
        num_bins: int = 8,
        bound: float = math.pi,
        *,
        min_bin: float = 1e-3,
        min_slope: float = 1e-3,
    ):
        check_spline(num_bins, bound, min_bin, min_slope)
        self.num_bins = num_bins
        self.bound = float(bound)
        self.min_bin = min_bin
        self.min_slope = min_slope
        self.event_shape = ()
        self.context_shape = (3 * num_bins,)

    def forward_and_log_det(self, x, context=None):
        return self._around(unbend, x, context)

    def inverse_and_log_det(self, y, context=None):
        return self._around(bend, y, context)

    def _around(self, direction, x, params):
        widths, heights, inner = jnp.split(params, 3)
        both = tuple(knots(part, self.bound, self.min_bin) for part in (widths, heights))
        delta = slopes(inner, self.min_slope)
        turns = jnp.round(x / (2 * self.bound)) * (2 * self.bound)
        y, log_det = direction(x - turns, both, jnp.concatenate([delta, delta[:1]]))
        return y + turns, log_det


class Bin(NamedTuple):
    """The bin that a point falls into."""

    x: jax.Array
    y: jax.Array
    width: jax.Array
    height: jax.Array
    left: jax.Array  # slope at its left end
    right: jax.Array


def knots(params: jax.Array, bound: float, min_bin: float) -> jax.Array:
    """Return `K + 1` increasing knots from `-bound` to `bound`, which are met exactly."""
    fractions = min_bin + (1 - min_bin * len(params)) * jax.nn.softmax(params)
    inner = bound * (2 * jnp.cumsum(fractions[:-1]) - 1)
    return jnp.pad(inner, 1, constant_values=(-bound, bound))


def slopes(params: jax.Array, min_slope: float) -> jax.Array:
    """Return positive slopes, one where `params` are zero."""
    return min_slope + jax.nn.softplus(params + math.log(math.expm1(1 - min_slope)))


def bend(x: jax.Array, xy: tuple, delta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return $g(x)$ and its log-slope (eqs. 4 and 5)."""
    k = find(x, xy[0], xy, delta)
    s, xi = k.height / k.width, (x - k.x) / k.width
    y = k.y + k.height * (s * xi**2 + k.left * xi * (1 - xi)) / _denominator(k, s, xi)
    return y, _log_slope(k, s, xi)


def unbend(y: jax.Array, xy: tuple, delta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the `x` with $g(x) = y$ and the log-slope of the inverse (eqs. 6 to 8)."""
    k = find(y, xy[1], xy, delta)
    s, rise = k.height / k.width, y - k.y
    bow = rise * (k.right + k.left - 2 * s)
    a, b, c = k.height * (s - k.left) + bow, k.height * k.left - bow, -s * rise
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, jnp.finfo(y.dtype).tiny))
    xi = 2 * c / (-b - root)
    return k.x + xi * k.width, -_log_slope(k, s, xi)


def find(value: jax.Array, ends: jax.Array, xy: tuple, delta: jax.Array) -> Bin:
    """Return the bin between whose `ends` a value falls."""
    x, y = xy
    index = jnp.sum(value >= ends[1:-1])
    here = jnp.arange(len(x) - 1) == index

    def pick(values):
        return jnp.sum(jnp.where(here, values, 0))

    corner = pick(x[:-1]), pick(y[:-1])
    return Bin(*corner, pick(jnp.diff(x)), pick(jnp.diff(y)), pick(delta[:-1]), pick(delta[1:]))


def check_spline(num_bins: int, bound: float, min_bin: float, min_slope: float) -> None:
    """Raise `ValueError` for a spline that cannot be."""
    if num_bins < 2 or not bound > 0:
        raise ValueError(f"Expected num_bins >= 2 and bound > 0, got {num_bins} and {bound}.")
    if not 0 < min_bin * num_bins < 1 or not 0 < min_slope < 1:
        raise ValueError(
            f"Expected 0 < min_bin < 1 / num_bins and 0 < min_slope < 1, got {min_bin} and "
            f"{min_slope} with {num_bins} bins."
        )


def _denominator(k: Bin, s, xi):
    return s + (k.right + k.left - 2 * s) * xi * (1 - xi)


def _log_slope(k: Bin, s, xi):
    slope = k.right * xi**2 + 2 * s * xi * (1 - xi) + k.left * (1 - xi) ** 2
    return 2 * jnp.log(s) + jnp.log(slope) - 2 * jnp.log(_denominator(k, s, xi))
