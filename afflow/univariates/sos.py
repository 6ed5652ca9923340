"""The sum-of-squares polynomial flow."""

from functools import partial, reduce

import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_number, check_positive
from afflow._tools.bounds import bound_softly, compute_gains, linear_tails
from afflow._tools.shapes import check_size
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.monotone import forward_by_search

_MAX_COEFFICIENT = 5.0


class SumOfSquares(Univariate):
    r"""The integral of a sum of squared polynomials on $[-B, B]$, with linear tails.

    $$x = c + \int_0^y f(t)\, dt, \qquad
    f(t) = \epsilon + (1 - \epsilon) \sum_{k=1}^K p_k(t/B)^2, \qquad
    p_k(s) = \sum_{r=0}^R a_{kr} s^r,$$

    from data to noise. The direction from noise to data is found numerically. Gauss-Legendre
    quadrature with $R + 1$ nodes gives the integral exactly. Beyond $\pm B$ the map continues along
    the tangents at $\pm B$. A polynomial of high degree would grow so fast there that its inverse
    would have no correct digits.

    The parameters are $c$ and one number for each $a_{kr}$. The number is multiplied by a constant
    gain, smoothly bounded by 5, and added to the start $\delta_{r0} / \sqrt K$. Zeros give the
    identity. The gain differs for each polynomial. Equal polynomials would otherwise stay equal.

    Jaini et al. 2019, arXiv:1905.02325. The paper's map is a polynomial on the whole real line,
    and has no $\epsilon$.

    Args:
        num_polynomials: `K`.
        degree: `R` of each polynomial; the map has degree `2R + 1`.
        bound: `B`.
        min_slope: $\epsilon$ in (0, 1).

    Raises:
        ValueError: for values out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> sos = afflow.univariates.SumOfSquares(num_polynomials=1, degree=1, bound=2.0)
        >>> round(sos.inverse(jnp.array(1.5), jnp.array([1.0, 0.0, 0.0])).item(), 4)
        2.5
    """

    def __init__(
        self,
        num_polynomials: int = 5,
        degree: int = 4,
        bound: float = 5.0,
        min_slope: float = 1e-3,
    ):
        check_size("num_polynomials", num_polynomials)
        check_size("degree", degree, least=0)
        check_positive(bound=bound)
        check_number("min_slope", min_slope, lambda slope: 0 < slope < 1, "in (0, 1)")
        self.num_polynomials, self.degree = num_polynomials, degree
        self.bound, self.min_slope = float(bound), float(min_slope)
        super().__init__(1 + num_polynomials * (degree + 1))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return forward_by_search(self, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return linear_tails(partial(self._curve, context), y, self.bound)

    def _curve(self, params, y):
        """Return the value and the slope at `y`. The quadrature is exact for these polynomials."""
        nodes, weights = np.polynomial.legendre.leggauss(self.degree + 1)
        points = jnp.asarray(np.append((nodes + 1) / 2, 1), y.dtype)  # nodes, and y itself
        s = (y / self.bound * points)[None]  # (1, R + 2)
        columns = self._coefficients(params[1:]).T[::-1, :, None]  # (R + 1, K, 1)
        p = reduce(lambda p, a: p * s + a, columns, jnp.zeros_like(s))  # (K, R + 2)
        squares = jnp.square(p).sum(0)
        mean = jnp.sum(squares[:-1] * jnp.asarray(weights / 2, y.dtype))
        return params[0] + y * self._lift(mean), self._lift(squares[-1])

    def _lift(self, squares):
        return self.min_slope + (1 - self.min_slope) * squares

    def _coefficients(self, free):
        shape = (self.num_polynomials, self.degree + 1)  # (K, R + 1)
        constant = np.eye(1, shape[1]) / np.sqrt(shape[0])  # (1, R + 1)
        gain = compute_gains(shape[0], free.dtype)[:, None]
        added = bound_softly(gain * free.reshape(shape), _MAX_COEFFICIENT)
        return jnp.asarray(constant, free.dtype) + added
