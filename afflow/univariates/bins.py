"""The bins of a rational-quadratic spline, and the search for one."""

import math
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from afflow._tools.bounds import soft_bound
from afflow._tools.shapes import check_size

_MAX_LOGIT = 30.0


@dataclass(frozen=True)
class Grid:
    """How many bins a spline has, on which interval, and their least sizes and slopes.

    Its parameters are logits of widths, logits of heights, and slopes before a softplus.
    """

    num_bins: int
    bound: float
    min_bin: float
    min_slope: float
    closed: bool = False  # a circle

    def __post_init__(self):
        check_size("num_bins", self.num_bins, least=2)
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
        """Return the parameter of each knot's slope; past the last at open ends (slope 1)."""
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


class Part(NamedTuple):
    """A bin on one axis."""

    start: jax.Array
    size: jax.Array
    weight: jax.Array  # its exponential in the softmax
    before: jax.Array  # the exponentials of the bins before it


class Found(NamedTuple):
    """The result of the search for a bin."""

    x: Part
    y: Part
    left: jax.Array  # its slopes before the softplus
    right: jax.Array
    number: jax.Array
    left_param: jax.Array  # which parameter is its left slope
    right_param: jax.Array

    def bin(self, grid: Grid) -> Bin:
        """Return the bin with its slopes."""
        slopes = [grid.min_slope + jax.nn.softplus(raw) for raw in (self.left, self.right)]
        return Bin(self.x.start, self.y.start, self.x.size, self.y.size, *slopes)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def locate(grid: Grid, axis: int, value: jax.Array, params: jax.Array) -> Bin:
    r"""Return the bin that holds `value` on the axis of `x` (0) or of `y` (1).

    Bin `k` has the size $c\,p_k$ and a constant, with $p$ the softmax of the logits $u$;
    so $\dot p = p\,(\dot u - p^\top \dot u)$ gives its tangent, and that of the start the sum
    of those before.
    """
    return search(grid, axis, value, params)[0].bin(grid)


@locate.defjvp
def _locate_jvp(grid, axis, primals, tangents):
    """Tangents as sums over all parameters: one loop in reverse mode.

    Divide each sum last and each tangent first. Otherwise XLA fuses the unfinished sums into
    the loop over parameters and computes them again for every parameter.
    """
    here, totals = search(grid, axis, *primals)
    params, num_bins, i = primals[1], grid.num_bins, jnp.arange(grid.num_params)
    t = 1 + jnp.abs(params) / _MAX_LOGIT  # soft_bound is params / t, its slope 1 / t^2
    dot = tangents[1] / jnp.where(i < 2 * num_bins, t * t * jnp.exp(-params / t), 1.0)

    def start_and_size(first, part, total):
        k, mine = first + here.number, (i >= first) & (i < first + num_bins)
        before, p = part.before / total, part.weight / total
        parts = jnp.where(i < k, 1, 0) - before, jnp.where(i == k, 1, 0) - p
        scale = total / (2 * grid.bound * (1 - grid.min_bin * num_bins))
        return [jnp.sum(part * jnp.where(mine, dot, 0)) / scale for part in parts]

    def slope(knot, raw):
        dots = jnp.where(i == knot, dot, 0) * jnp.exp(jnp.minimum(raw, 0))
        return jnp.sum(dots) / (1 + jnp.exp(-jnp.abs(raw)))

    x, width = start_and_size(0, here.x, totals[0])
    y, height = start_and_size(num_bins, here.y, totals[1])
    slopes = slope(here.left_param, here.left), slope(here.right_param, here.right)
    return here.bin(grid), Bin(x, y, width, height, *slopes)


def search(grid: Grid, axis: int, value: jax.Array, params: jax.Array) -> tuple[Found, list]:
    """Return the bin that holds `value`, and the total of each softmax.

    Scalars, and a fold over the bins where vectors would be sorted and gathered from: XLA
    fuses it all into one loop over events, three times as fast on a CPU.
    """
    *logits, slopes = jnp.split(params, [grid.num_bins, 2 * grid.num_bins])
    axes, totals = zip(*(divide(grid, u) for u in logits), strict=True)
    one = jnp.full_like(value, math.log(math.expm1(1 - grid.min_slope)))  # what slope 1 is of
    raw = [*(one + slope for slope in unstack(slopes)), one]
    raw = [raw[knot - 2 * grid.num_bins] for knot in grid.knots]
    ends = raw[:-1], raw[1:], range(grid.num_bins), grid.knots[:-1], grid.knots[1:]

    def step(here, following):
        beyond = value >= following[axis].start
        return jax.tree.map(lambda a, b: jnp.where(beyond, b, a), here, following)

    return reduce(step, map(Found, *axes, *ends)), list(totals)


def unstack(params: jax.Array) -> list[jax.Array]:
    """Return the entries of a vector as scalars."""
    return [part.reshape(()) for part in jax.lax.split(params, [1] * len(params))]


def divide(grid: Grid, logits: jax.Array) -> tuple[list[Part], Any]:
    """Return the bins of one axis, from `-bound` to `bound` exactly, and the softmax's total.

    XLA compares with a start in several loops. Without the maximum some of them would fuse
    its product and sum into one rounding, and a bin at a knot be mixed of two.
    """
    weights = unstack(jnp.exp(soft_bound(logits, _MAX_LOGIT)))
    total = sum(weights)
    scale = 2 * grid.bound * (1 - grid.min_bin * grid.num_bins) / total
    least = 2 * grid.bound * grid.min_bin
    sizes = [least + jnp.maximum(scale * weight, 0) for weight in weights[:-1]]
    starts = list(accumulate(sizes, initial=jnp.full_like(scale, -grid.bound)))
    before = accumulate(weights[:-1], initial=jnp.zeros_like(scale))
    sizes.append(grid.bound - starts[-1])
    return [Part(*part) for part in zip(starts, sizes, weights, before, strict=True)], total
