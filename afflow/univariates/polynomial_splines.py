"""Monotone splines of polynomials: linear, quadratic and cubic."""

from abc import abstractmethod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_number, check_positive
from afflow._tools.bounds import bound_softly
from afflow._tools.shapes import check_size
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.monotone import solve_monotone

_MAX_LOGIT, _MAX_LOG_SLOPE = 30.0, 7.0


class Pieces(NamedTuple):
    r"""A spline: $y = y_k + w_k (a \xi + b \xi^2 + c \xi^3)$ in bin `k`, with $\xi$ from 0 to 1."""

    x: jax.Array  # knots (K + 1,)
    y: jax.Array  # values at the knots (K + 1,)
    coefficients: jax.Array  # a, b, c of each bin (K, 3)


class _PolynomialSpline(Univariate):
    """A spline on $[-B, B]$ with identity tails. A subclass computes the pieces."""

    def __init__(self, num_bins: int = 8, bound: float = 5.0, *, min_bin: float = 1e-3):
        check_size("num_bins", num_bins, least=2)
        check_positive(bound=bound)
        check_number("min_bin", min_bin, lambda size: 0 < size * num_bins < 1, "in (0, 1/num_bins)")
        self.num_bins, self.bound, self.min_bin = num_bins, float(bound), float(min_bin)
        super().__init__(self._num_params())

    @abstractmethod
    def _num_params(self) -> int:
        """Return the number of parameters."""

    @abstractmethod
    def _pieces(self, params: Any) -> Pieces:
        """Return the spline with the parameters `params`."""

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        """Find the root in the bin, since the spline maps data to noise."""
        inside = jnp.clip(x, -self.bound, self.bound)
        pieces = self._pieces(context)
        k = _bin(pieces.y, inside)
        width = pieces.x[k + 1] - pieces.x[k]
        xi = _root(pieces.coefficients[k], (inside - pieces.y[k]) / width)
        y = pieces.x[k] + width * xi
        return self._with_tails(x, y, -jnp.log(_slope(pieces.coefficients[k], xi)))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        inside = jnp.clip(y, -self.bound, self.bound)
        pieces = self._pieces(context)
        k = _bin(pieces.x, inside)
        width = pieces.x[k + 1] - pieces.x[k]
        xi = (inside - pieces.x[k]) / width
        x = pieces.y[k] + width * _value(pieces.coefficients[k], xi)
        return self._with_tails(y, x, jnp.log(_slope(pieces.coefficients[k], xi)))

    def _with_tails(self, x, y, log_slope):
        is_tail = (x <= -self.bound) | (x >= self.bound)
        return jnp.where(is_tail, x + 0 * y, y), jnp.where(is_tail, 0 * log_slope, log_slope)

    def _sizes(self, logits):
        """Return positive bin sizes `(K,)` with the sum `2 * bound`, from logits `(K,)`."""
        shares = jax.nn.softmax(bound_softly(logits, _MAX_LOGIT))
        return 2 * self.bound * (self.min_bin + (1 - self.num_bins * self.min_bin) * shares)

    def _knots(self, sizes):
        inner = jnp.cumsum(sizes[:-1]) - self.bound
        ends = jnp.full_like(sizes[:1], self.bound)
        return jnp.concatenate([-ends, inner, ends])


class LinearSpline(_PolynomialSpline):
    r"""A monotone piecewise-linear map on $[-B, B]$ with identity tails.

    In bin $k$ of width $w = 2B/K$ and height $h_k$, $g(x) = y_k + h_k (x - x_k) / w$. `inverse`
    (data to noise) is $g$. The parameters are `num_bins` logits of the heights. Zeros give the
    identity. Densities jump at the knots. Müller et al. 2019, arXiv:1808.03856, section 4.1.

    Args:
        num_bins: bins `K`.
        bound: half-width `B` of the interval.
        min_bin: smallest height of a bin, as a fraction of the interval.

    Raises:
        ValueError: for fewer than two bins, a bound that is not positive, or a `min_bin` outside
            `(0, 1 / num_bins)`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> spline = afflow.univariates.LinearSpline(4)
        >>> round(spline.inverse(jnp.array(1.5), jnp.zeros(4)).item(), 4)
        1.5
    """

    def _num_params(self):
        return self.num_bins

    def _pieces(self, params):
        heights = self._sizes(params)
        width = 2 * self.bound / self.num_bins
        x = self._knots(jnp.full_like(heights, width))
        zeros = jnp.zeros_like(heights)
        return Pieces(x, self._knots(heights), jnp.stack([heights / width, zeros, zeros], -1))


class QuadraticSpline(_PolynomialSpline):
    r"""A monotone piecewise-quadratic map on $[-B, B]$ with identity tails.

    The slope is continuous, and linear in each bin. It is 1 at $\pm B$ and $s\,e^{v_k}$ at the
    inner knots. The factor $s$ makes the map end at $(B, B)$. `inverse` (data to noise) is this
    map. The parameters are `num_bins` logits of the widths and `num_bins - 1` values $v_k$. Zeros
    give the identity. Müller et al. 2019, arXiv:1808.03856, section 4.2.

    Args:
        num_bins: bins `K`; the number of parameters is `2 K - 1`.
        bound: half-width `B` of the interval.
        min_bin: smallest width of a bin, as a fraction of the interval.

    Raises:
        ValueError: as for `LinearSpline`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> spline = afflow.univariates.QuadraticSpline(4)
        >>> round(spline.inverse(jnp.array(1.5), jnp.zeros(7)).item(), 4)
        1.5
    """

    def _num_params(self):
        return 2 * self.num_bins - 1

    def _pieces(self, params):
        widths = self._sizes(params[: self.num_bins])
        free = jnp.exp(bound_softly(params[self.num_bins :], _MAX_LOG_SLOPE))
        left = 2 * self.bound - (widths[0] + widths[-1]) / 2  # area left for the inner knots
        scale = left / jnp.sum(free * (widths[:-1] + widths[1:]) / 2)
        one = jnp.ones_like(widths[:1])
        slopes = jnp.concatenate([one, scale * free, one])  # (K + 1,)
        heights = widths * (slopes[:-1] + slopes[1:]) / 2
        bends = (slopes[1:] - slopes[:-1]) / 2
        coefficients = jnp.stack([slopes[:-1], bends, jnp.zeros_like(bends)], -1)
        return Pieces(self._knots(widths), self._knots(heights), coefficients)


class CubicSpline(_PolynomialSpline):
    r"""A monotone piecewise-cubic map on $[-B, B]$ with identity tails.

    The map is the cubic Hermite interpolant of the knots. Let $s_k$ be the mean slope of bin $k$.
    The slope at an inner knot is Steffen's, $2 \min(s_{k-1}, s_k, p_k / 2)$, where $p_k$ is the
    slope of the parabola through three knots. The slope at an end is the smaller of 1 and $2 s$,
    with the mean slope $s$ of the bin at this end. `inverse` (data to noise) is the spline;
    `forward` is a root search. The parameters are `num_bins` logits of the widths and `num_bins`
    logits of the heights. Zeros give the identity. Durkan et al. 2019, arXiv:1906.02145.

    Args:
        num_bins: bins `K`; the number of parameters is `2 K`.
        bound: half-width `B` of the interval.
        min_bin: smallest width and height of a bin, as a fraction of the interval.

    Raises:
        ValueError: as for `LinearSpline`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.univariates.CubicSpline(4).inverse(jnp.array(1.5), jnp.zeros(8)).item(), 4)
        1.5
    """

    def _num_params(self):
        return 2 * self.num_bins

    def _pieces(self, params):
        widths, heights = map(self._sizes, jnp.split(params, 2))
        s = heights / widths
        p = (s[:-1] * widths[1:] + s[1:] * widths[:-1]) / (widths[:-1] + widths[1:])
        inner = 2 * jnp.minimum(jnp.minimum(s[:-1], s[1:]), p / 2)
        ends = jnp.minimum(1, 2 * s[jnp.array([0, -1])])
        slopes = jnp.concatenate([ends[:1], inner, ends[1:]])
        a, d = slopes[:-1], slopes[1:]
        coefficients = jnp.stack([a, 3 * s - 2 * a - d, a + d - 2 * s], -1)
        return Pieces(self._knots(widths), self._knots(heights), coefficients)


def _bin(knots: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(x >= knots[1:-1])


def _value(coefficients: jax.Array, xi: jax.Array) -> jax.Array:
    a, b, c = coefficients
    return xi * (a + xi * (b + xi * c))


def _slope(coefficients: jax.Array, xi: jax.Array) -> jax.Array:
    a, b, c = coefficients
    return a + xi * (2 * b + xi * 3 * c)


def _root(coefficients: jax.Array, value: jax.Array) -> jax.Array:
    xi = solve_monotone(jax.tree_util.Partial(_extend), value, coefficients)
    return xi + jax.lax.stop_gradient(jnp.clip(xi, 0, 1) - xi)  # clip halves gradients at 0 and 1


def _extend(xi: jax.Array, coefficients: Any) -> tuple[jax.Array, jax.Array]:
    """Return the value and log-slope at `xi` of a bin's polynomial, linear outside [0, 1]."""
    inside = jnp.clip(xi, 0, 1)
    slope = _slope(coefficients, inside)
    return _value(coefficients, inside) + slope * (xi - inside), jnp.log(slope)
