"""Bernstein polynomials as a scalar map."""

from functools import partial

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_positive
from afflow._tools.bounds import bound_softly, linear_tails
from afflow._tools.shapes import check_size
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.monotone import forward_by_search


class BernsteinPolynomial(Univariate):
    r"""An increasing polynomial in Bernstein form on $[-B, B]$, with linear tails.

    $$x = \sum_{i=0}^M \theta_i \binom{M}{i} t^i (1 - t)^{M - i}, \qquad
    t = \frac{y + B}{2B}, \qquad \theta_0 < \dots < \theta_M,$$

    from data to noise. The direction from noise to data is found numerically. Beyond $\pm B$ the
    map continues along the tangents at $\pm B$. The map is therefore onto the real line and once
    continuously differentiable.

    The parameters are the centre of the $\theta_i$, and the `M` logarithms of
    $(\theta_i - \theta_{i-1}) / (2B/M)$, bounded as in `Affine`. Zeros give the identity.

    Ramasinghe et al. 2021, arXiv:2102.03509; Sick et al. 2020, arXiv:2004.00464.

    Args:
        degree: `M`.
        bound: `B`.
        max_log_scale: the bound on these logarithms, and thus on the log-slope of the map.

    Raises:
        ValueError: if `degree < 1`, `bound <= 0` or `max_log_scale <= 0`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> bernstein = afflow.univariates.BernsteinPolynomial(degree=4)
        >>> round(bernstein.inverse(jnp.array(1.5), jnp.array([1.0, 0, 0, 0, 0])).item(), 4)
        2.5
    """

    def __init__(self, degree: int = 16, bound: float = 5.0, max_log_scale: float = 7.0):
        check_size("degree", degree)
        check_positive(bound=bound, max_log_scale=max_log_scale)
        self.degree = degree
        self.bound, self.max_log_scale = float(bound), float(max_log_scale)
        super().__init__(degree + 1)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return forward_by_search(self, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return linear_tails(partial(self._curve, context), y, self.bound)

    def _curve(self, params, y):
        slopes = jnp.exp(bound_softly(params[1:], self.max_log_scale))  # (M,)
        theta = jnp.pad(jnp.cumsum(slopes), (1, 0)) * (2 * self.bound / self.degree)
        theta = theta - theta[-1] / 2 + params[0]  # (M + 1,)
        t = (y + self.bound) / (2 * self.bound)
        return de_casteljau(theta, t), de_casteljau(slopes, t)


def de_casteljau(theta: jax.Array, t: jax.Array) -> jax.Array:
    """Return the value at `t` in [0, 1] of the polynomial with Bernstein coefficients `theta`."""
    while len(theta) > 1:
        theta = (1 - t) * theta[:-1] + t * theta[1:]
    return theta[0]
