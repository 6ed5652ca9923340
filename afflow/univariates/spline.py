"""Rational-quadratic splines: monotone, smooth, and with an inverse in closed form."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_positive
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.rational_quadratic_bins import Bin, Grid, locate


class RationalQuadraticSpline(Univariate):
    r"""A monotone rational-quadratic spline on $[-B, B]$ with identity tails.

    Bin $k$ has width $w$, height $h$ and mean slope $s = h / w$. The spline has slope $\delta_k$
    at the knot $(x_k, y_k)$. With $\xi = (x - x_k) / w$,

    $$g(x) = y_k + \frac{h\,(s\,\xi^2 + \delta_k\,\xi(1 - \xi))}
    {s + (\delta_{k+1} + \delta_k - 2s)\,\xi(1 - \xi)}.$$

    `inverse` (data to noise) is $g$. `forward` is the root of a quadratic equation. The parameters
    are `num_bins` logits of the widths, `num_bins` logits of the heights, and `num_bins - 1` raw
    inner slopes. The logits are smoothly bounded by 30 before the softmax. A softplus makes the
    slopes positive. Zeros give the identity.

    Durkan et al. 2019, arXiv:1906.04032, eqs. 4-8.

    Args:
        num_bins: bins `K`; the number of parameters is `3 K - 1`.
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
        check_positive(bound=bound)
        self.grid = Grid(num_bins, float(bound), min_bin, min_slope)
        super().__init__(self.grid.num_params)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._inside(unbend, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._inside(bend, y, context)

    def _inside(self, direction, x, params):
        """Apply `direction` of the spline inside the interval, and the identity outside.

        With parameters that are NaN, the results are NaN outside, too.
        """
        inside = jnp.abs(x) < self.grid.bound
        y, log_det = direction(self.grid, jnp.where(inside, x, 0.0), params)
        return jnp.where(inside, y, x + 0 * y), jnp.where(inside, log_det, 0 * log_det)


class CircularSpline(Univariate):
    r"""A rational-quadratic spline on the circle, with equal slopes at the two joined ends.

    The circle is $[-B, B)$ with its ends joined. On the real line the map is periodic up to a
    shift, $g(x + 2B) = g(x) + 2B$. It is therefore smooth and invertible on the whole line. A flow
    on the circle needs a base on the circle, such as `Uniform(dim, -B, B)`. The map does not move
    the point $-B$. To move this point too, shift the circle between layers.

    Rezende et al. 2020, arXiv:2002.02428.

    Args:
        num_bins: bins `K`; the number of parameters is `3 K`. Zeros give the identity.
        bound: half of the period; by default an angle in radians.
        min_bin: smallest width and height of a bin, as a fraction of the period.
        min_slope: smallest slope at a knot.

    Raises:
        ValueError: as for `RationalQuadraticSpline`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> spline = afflow.univariates.CircularSpline(num_bins=4)
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
        check_positive(bound=bound)
        self.grid = Grid(num_bins, float(bound), min_bin, min_slope, closed=True)
        super().__init__(self.grid.num_params)

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


# Reverse mode stores the inputs only, and recomputes the dozens of intermediates.
@partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def bend(grid: Grid, x: jax.Array, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return $g(x)$ and its log-slope."""
    return bend_within(locate(grid, 0, x, params), x)


def bend_within(k: Bin, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return $g(x)$ and its log-slope in the bin that holds `x`, by eqs. 4 and 5."""
    s, xi = k.height / k.width, _move_within((x - k.x) / k.width)
    y = k.y + k.height * (s * xi**2 + k.left * xi * (1 - xi)) / _compute_denominator(k, s, xi)
    return y, _log_slope(k, s, xi)


@partial(jax.checkpoint, prevent_cse=False, static_argnums=0)
def unbend(grid: Grid, y: jax.Array, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the `x` with $g(x) = y$, and the log-slope of the inverse."""
    return unbend_within(locate(grid, 1, y, params), y)


def unbend_within(k: Bin, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the `x` with $g(x) = y$, and its log-slope, in the bin of `y`, by eqs. 6 to 8."""
    s, eta = k.height / k.width, _move_within((y - k.y) / k.height)
    d = k.left * (1 - eta) - k.right * eta
    b = d + 2 * s * eta  # next: the root of (s - b) xi^2 + b xi = s eta, without cancellation
    q = jnp.abs(b) + jnp.sqrt(d**2 + 4 * s**2 * eta * (1 - eta))
    xi = _move_within(jnp.where(b < 0, q, 2 * s * eta) / jnp.where(b < 0, 2 * (s - b), q))
    return k.x + xi * k.width, -_log_slope(k, s, xi)


def _move_within(xi):
    """Clip `xi` to [0, 1], but keep its gradient. A slope at a rounded `xi` could be negative."""
    return xi + jax.lax.stop_gradient(jnp.clip(xi, 0, 1) - xi)


def _compute_denominator(k: Bin, s, xi):
    return s + (k.right + k.left - 2 * s) * xi * (1 - xi)


def _log_slope(k: Bin, s, xi):
    slope = k.right * xi**2 + 2 * s * xi * (1 - xi) + k.left * (1 - xi) ** 2
    return jnp.log(s**2 * slope / _compute_denominator(k, s, xi) ** 2)
