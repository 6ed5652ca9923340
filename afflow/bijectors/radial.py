"""The radial flow: a contraction or expansion of space around one point."""

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.numerics import widen
from afflow._tools.positive import positive
from afflow._tools.shapes import Shape, check_shape
from afflow.core.bijector import Bijector, of_one_event


class Radial(Bijector):
    r"""A move towards or away from a point, which fades with the distance.

    $$y = x + \kappa q\,(x - x_0), \qquad q = \frac{\alpha}{\alpha + r}, \quad
    r = \|x - x_0\|, \qquad |\det J| = (1 + \kappa q)^{D-1} (1 + \kappa q^2),$$

    where $\kappa = \beta / \alpha$. The bound $\kappa > -1$ makes the map invertible. The
    distance after the move is $r' = r (1 + \kappa q)$. This is a quadratic equation for $r$, so
    both directions are explicit. The map starts as the identity, at $\kappa = 0$.

    Rezende and Mohamed 2015, arXiv:1505.05770, eq. 14.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.Radial(2).forward(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        self.x0 = nnx.Param(jnp.zeros(self.event_shape))
        self.alpha = nnx.Param(jnp.zeros(()))
        self.kappa = nnx.Param(jnp.zeros(()))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        x0, alpha, kappa = self._parameters(x)
        q = 1 / (1 + _norm(x - x0) / alpha)
        return x + kappa * q * (x - x0), _log_det(kappa, q, x.size)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        x0, alpha, kappa = self._parameters(y)
        q = 1 / (1 + _contract(_norm(y - x0) / alpha, kappa))
        return x0 + (y - x0) / (1 + kappa * q), -_log_det(kappa, q, y.size)

    def _parameters(self, like):
        alpha, kappa = positive(self.alpha[...]), positive(self.kappa[...]) - 1
        return tuple(a.astype(like.dtype) for a in (self.x0[...], alpha, kappa))


def _log_det(kappa: jax.Array, q: jax.Array, dim: int) -> jax.Array:
    log_det = (dim - 1) * jnp.log1p(kappa * q) + jnp.log1p(kappa * q**2)
    return widen(log_det)


def _contract(s: jax.Array, kappa: jax.Array) -> jax.Array:
    """Return the `t >= 0` with `t (1 + kappa / (1 + t)) = s`, without cancellation."""
    p = 1 + kappa - s
    away = jnp.where(p > 0, p, -p) + jnp.sqrt(p**2 + 4 * s)
    return jnp.where(p > 0, 2 * s / away, away / 2)


def _norm(x: jax.Array) -> jax.Array:
    """Return the Euclidean norm, with derivative zero at zero."""
    square = jnp.sum(x * x)
    return jnp.where(square == 0, 0.0 * square, jnp.sqrt(jnp.where(square == 0, 1.0, square)))
