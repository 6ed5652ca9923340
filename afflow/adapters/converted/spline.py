"""The rational-quadratic spline of other libraries, with their rules for the knots."""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from afflow._tools.bounds import bound_softly
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.rational_quadratic_bins import Bin
from afflow.univariates.spline import bend_within, unbend_within


class Knots(NamedTuple):
    """The coordinates of the `K + 1` knots of a spline, and its slopes there."""

    x: jax.Array
    y: jax.Array
    slopes: jax.Array

    def find(self, axis: int, value: jax.Array) -> Bin:
        """Return the bin that holds `value` on the axis of `x` (0) or of `y` (1)."""
        number = jnp.sum(value >= self[axis][1:-1])
        here = jnp.arange(len(self.x) - 1) == number

        def pick(bins):
            return jnp.sum(jnp.where(here, bins, 0))

        return Bin(
            pick(self.x[:-1]),
            pick(self.y[:-1]),
            pick(jnp.diff(self.x)),
            pick(jnp.diff(self.y)),
            pick(self.slopes[:-1]),
            pick(self.slopes[1:]),
        )


class KnotRule(Protocol):
    """A function from raw parameters to `Knots`, and the interval of the knots."""

    @property
    def ends(self) -> tuple[float, float]:
        """Return the ends of the interval."""
        ...

    @property
    def num_params(self) -> int:
        """Return the number of raw parameters."""
        ...

    def __call__(self, raw: jax.Array) -> Knots:
        """Return the knots."""
        ...


@dataclass(frozen=True)
class ZukoKnots:
    """The knots of `zuko.transforms.MonotonicRQSTransform`."""

    num_bins: int
    bound: float
    slope: float

    @property
    def ends(self):
        return -self.bound, self.bound

    @property
    def num_params(self):
        return 3 * self.num_bins - 1

    def __call__(self, raw):
        x, y, slopes = jnp.split(raw, [self.num_bins, 2 * self.num_bins])
        most = -math.log(self.slope)
        x, y = (_place(jax.nn.softmax(bound_softly(a, most / 2)), self.ends) for a in (x, y))
        return Knots(x, y, jnp.exp(jnp.pad(bound_softly(slopes, most), 1)))


@dataclass(frozen=True)
class NflowsKnots:
    """The knots of the splines of nflows with linear tails."""

    num_bins: int
    bound: float
    min_width: float
    min_height: float
    min_slope: float
    divisor: float  # of the logits

    @property
    def ends(self):
        return -self.bound, self.bound

    @property
    def num_params(self):
        return 3 * self.num_bins - 1

    def __call__(self, raw):
        x, y, slopes = jnp.split(raw, [self.num_bins, 2 * self.num_bins])
        x = _place(_share(x / self.divisor, self.min_width), self.ends)
        y = _place(_share(y / self.divisor, self.min_height), self.ends)
        inner = self.min_slope + jax.nn.softplus(slopes)
        return Knots(x, y, jnp.pad(inner, 1, constant_values=1))


@dataclass(frozen=True)
class FlowjaxKnots:
    """The knots of `flowjax.bijections.RationalQuadraticSpline`, with slopes at the ends too."""

    num_bins: int
    ends: tuple[float, float]
    min_width: float
    min_height: float
    min_slope: float

    @property
    def num_params(self):
        return 3 * self.num_bins + 1

    def __call__(self, raw):
        x, y, slopes = jnp.split(raw, [self.num_bins, 2 * self.num_bins])
        length = self.ends[1] - self.ends[0]
        x = _place(_share(x, self.min_width / length), self.ends)
        y = _place(_share(y, self.min_height / length), self.ends)
        return Knots(x, y, self.min_slope + jax.nn.softplus(slopes))


class ConvertedSpline(Univariate):
    """A monotone rational-quadratic spline on an interval, with the knots of another library.

    The map is the identity outside of the interval. `forward` is the spline, and `inverse` is the
    root of a quadratic equation. Zero parameters do not give the identity.

    Durkan et al. 2019, arXiv:1906.04032.

    Args:
        knots: the rule from raw parameters to knots.
    """

    def __init__(self, knots: KnotRule):
        self.knots = knots
        super().__init__(knots.num_params)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._inside(0, bend_within, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._inside(1, unbend_within, y, context)

    def _inside(self, axis, direction, x, params):
        """Apply `direction` of the spline inside the interval, and the identity outside."""
        low, high = self.knots.ends
        inside = (low <= x) & (x <= high)
        safe = jnp.where(inside, x, low)
        y, log_det = direction(self.knots(params).find(axis, safe), safe)
        return jnp.where(inside, y, x), jnp.where(inside, log_det, 0)


def _share(logits: jax.Array, least: float) -> jax.Array:
    """Return the softmax, mixed with equal shares so that none is below `least`."""
    return least + (1 - least * len(logits)) * jax.nn.softmax(logits)


def _place(shares: jax.Array, ends: tuple[float, float]) -> jax.Array:
    """Return the ends of bins of given shares of an interval."""
    low, high = ends
    inner = low + (high - low) * jnp.cumsum(shares)[:-1]
    return jnp.concatenate([jnp.full(1, low, inner.dtype), inner, jnp.full(1, high, inner.dtype)])
