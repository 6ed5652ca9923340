"""Rational-quadratic splines: monotone, smooth, and inverted in closed form."""

import math
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from afflow.bijector import Bijector, of_one_event
from afflow.univariate.bounds import soft_bound

_MAX_LOGIT = 30.0


class RationalQuadraticSpline(Bijector):
    r"""A monotone rational-quadratic spline on $[-B, B]$ with identity tails.

    In bin $k$ of width $w$ and height $h$, with $s = h / w$, slopes $\delta_k$ at the knots
    $(x_k, y_k)$ and $\xi = (x - x_k) / w$,

    $$g(x) = y_k + \frac{h\,(s\,\xi^2 + \delta_k\,\xi(1 - \xi))}
    {s + (\delta_{k+1} + \delta_k - 2s)\,\xi(1 - \xi)}.$$

    `inverse` (data to noise) is $g$, `forward` the root of a quadratic. The parameters are
    `num_bins` widths and heights each, through a softmax whose arguments are smoothly
    bounded by 30, and `num_bins - 1` inner slopes, through a softplus; zeros give the
    identity.

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
        self.grid = Grid(num_bins, float(bound), min_bin, min_slope)
        self.event_shape = ()
        self.context_shape = (self.grid.num_params,)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._inside(unbend, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._inside(bend, y, context)

    def _inside(self, direction, x, params):
        """Apply the spline inside the interval; outside it is the identity."""
        inside = jnp.abs(x) < self.grid.bound
        y, log_det = direction(self.grid, jnp.where(inside, x, 0.0), params)
        return jnp.where(inside, y, x), jnp.where(inside, log_det, 0.0)


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
        self.grid = Grid(num_bins, float(bound), min_bin, min_slope, closed=True)
        self.event_shape = ()
        self.context_shape = (self.grid.num_params,)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._around(unbend, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._around(bend, y, context)

    def _around(self, direction, x, params):
        period = 2 * self.grid.bound
        turns = jnp.round(x / period) * period
        y, log_det = direction(self.grid, x - turns, params)
        return y + turns, log_det


@dataclass(frozen=True)
class Grid:
    """How many bins a spline has, on which interval, and their least sizes and slopes.

    Its parameters are the logits of widths, those of heights, and slopes before a softplus.
    """

    num_bins: int
    bound: float
    min_bin: float
    min_slope: float
    closed: bool = False  # a circle

    def __post_init__(self):
        if self.num_bins < 2 or not self.bound > 0:
            raise ValueError(
                f"Expected num_bins >= 2 and bound > 0, got {self.num_bins} and {self.bound}."
            )
        if not 0 < self.min_bin * self.num_bins < 1 or not 0 < self.min_slope < 1:
            raise ValueError(
                f"Expected 0 < min_bin < 1 / num_bins and 0 < min_slope < 1, got "
                f"{self.min_bin} and {self.min_slope} with {self.num_bins} bins."
            )

    @property
    def num_params(self) -> int:
        """Return `3 K`, one less without a slope where the interval closes."""
        return 3 * self.num_bins - (not self.closed)

    @property
    def knots(self) -> list[int]:
        """Return which parameter is the slope of each knot: on an open end none, and slope 1."""
        slopes, none = range(2 * self.num_bins, self.num_params), self.num_params
        return [*slopes, slopes[0]] if self.closed else [none, *slopes, none]


class Bin(NamedTuple):
    """A bin of the spline."""

    x: jax.Array
    y: jax.Array
    width: jax.Array
    height: jax.Array
    left: jax.Array  # slope at its left end
    right: jax.Array


class Found(NamedTuple):
    """What the search for a bin found."""

    bin: Bin  # with slopes before the softplus
    number: jax.Array
    left: jax.Array  # which parameter is its left slope
    right: jax.Array
    totals: tuple[jax.Array, jax.Array]  # of the exponentials of both softmaxes


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def locate(grid: Grid, axis: int, value: jax.Array, params: jax.Array) -> Bin:
    r"""Return the bin that holds `value` on the axis of `x` (0) or of `y` (1).

    Bin `k` has the size $c\,p_k$ and a constant, with $p$ the softmax of the logits $u$;
    so $\dot p = p\,(\dot u - p^\top \dot u)$ gives its tangent, and that of the start the sum
    of those before.
    """
    return _positive(grid, search(grid, axis, value, params).bin)


@locate.defjvp
def _locate_jvp(grid, axis, primals, tangents):
    """Tangents as sums over all parameters: one loop in reverse mode.

    XLA moves what a quotient does not end into that loop, to be computed for each parameter.
    So each sum is divided last, and each parameter's tangent first.
    """
    here, k, left, right, totals = search(grid, axis, *primals)
    params, num_bins, i = primals[1], grid.num_bins, jnp.arange(grid.num_params)
    t = 1 + jnp.abs(params) / _MAX_LOGIT  # soft_bound is params / t, its slope 1 / t^2
    dot = tangents[1] / jnp.where(i < 2 * num_bins, t * t * jnp.exp(-params / t), 1.0)
    free = 1 - grid.min_bin * num_bins

    def start_and_size(first, total, start, size):
        before = (start / (2 * grid.bound) - grid.min_bin * k) / free
        p = (size / (2 * grid.bound) - grid.min_bin) / free
        mine = jnp.where((i >= first) & (i < first + num_bins), dot, 0)
        scale = total / (2 * grid.bound * free)
        parts = jnp.where(i < first + k, 1, 0) - before, jnp.where(i == first + k, 1, 0) - p
        return [jnp.sum(part * mine) / scale for part in parts]

    def slope(knot, param):
        dots = jnp.where(i == knot, dot, 0) * jnp.exp(jnp.minimum(param, 0))
        return jnp.sum(dots) / (1 + jnp.exp(-jnp.abs(param)))

    x, width = start_and_size(0, totals[0], here.x + grid.bound, here.width)
    y, height = start_and_size(num_bins, totals[1], here.y + grid.bound, here.height)
    slopes = slope(left, here.left), slope(right, here.right)
    return _positive(grid, here), Bin(x, y, width, height, *slopes)


def _positive(grid, here):
    """Return a bin with its slopes."""
    left, right = (grid.min_slope + jax.nn.softplus(param) for param in (here.left, here.right))
    return here._replace(left=left, right=right)


def search(grid: Grid, axis: int, value: jax.Array, params: jax.Array) -> Found:
    """Return the bin that holds `value`, and where its tangent is found.

    Scalars, and a fold over the bins where vectors would be sorted and gathered from: XLA
    fuses it all into one loop over events, three times as fast on a CPU.
    """
    widths, heights, slopes = jnp.split(params, [grid.num_bins, 2 * grid.num_bins])
    (x, widths, across), (y, heights, up) = (intervals(grid, u) for u in (widths, heights))
    one = jnp.full_like(value, math.log(math.expm1(1 - grid.min_slope)))  # what slope 1 is of
    raw = [*(one + slope for slope in unstack(slopes)), one]
    raw = [raw[knot - 2 * grid.num_bins] for knot in grid.knots]
    bins = map(Bin, x, y, widths, heights, raw[:-1], raw[1:])
    found = zip(bins, range(grid.num_bins), grid.knots[:-1], grid.knots[1:], strict=True)

    def step(here, following):
        beyond = value >= following[0][axis]
        return jax.tree.map(lambda a, b: jnp.where(beyond, b, a), here, following)

    here, number, left, right = reduce(step, found)
    return Found(here, number, left, right, (across, up))


def unstack(params: jax.Array) -> list[jax.Array]:
    """Return the entries of a vector as scalars."""
    return [part.reshape(()) for part in jax.lax.split(params, [1] * len(params))]


def intervals(grid: Grid, logits: jax.Array) -> tuple[list, list, Any]:
    """Return starts and sizes, from `-bound` to `bound` exactly, and the softmax's total."""
    weights = unstack(jnp.exp(soft_bound(logits, _MAX_LOGIT)))
    total = sum(weights)
    scale = (1 - grid.min_bin * grid.num_bins) / total
    sizes = [2 * grid.bound * (grid.min_bin + scale * weight) for weight in weights[:-1]]
    starts = list(accumulate(sizes, initial=jnp.full_like(scale, -grid.bound)))
    return starts, [*sizes, grid.bound - starts[-1]], total


# Reverse mode keeps what goes in and derives again: there are dozens of intermediates.
@partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def bend(grid: Grid, x: jax.Array, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return $g(x)$ and its log-slope, by eqs. 4 and 5."""
    k = locate(grid, 0, x, params)
    s, xi = k.height / k.width, (x - k.x) / k.width
    y = k.y + k.height * (s * xi**2 + k.left * xi * (1 - xi)) / _denominator(k, s, xi)
    return y, _log_slope(k, s, xi)


@partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def unbend(grid: Grid, y: jax.Array, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the `x` with $g(x) = y$ and the log-slope of the inverse, by eqs. 6 to 8."""
    k = locate(grid, 1, y, params)
    s, rise = k.height / k.width, y - k.y
    bow = rise * (k.right + k.left - 2 * s)
    a, b, c = k.height * (s - k.left) + bow, k.height * k.left - bow, -s * rise
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, jnp.finfo(y.dtype).tiny))
    xi = 2 * c / (-b - root)
    return k.x + xi * k.width, -_log_slope(k, s, xi)


def _denominator(k: Bin, s, xi):
    return s + (k.right + k.left - 2 * s) * xi * (1 - xi)


def _log_slope(k: Bin, s, xi):
    slope = k.right * xi**2 + 2 * s * xi * (1 - xi) + k.left * (1 - xi) ** 2
    return jnp.log(s**2 * slope / _denominator(k, s, xi) ** 2)
