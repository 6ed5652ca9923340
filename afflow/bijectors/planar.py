"""The planar flow: a bend of space across one hyperplane."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial

from afflow._tools.arguments import draw_key
from afflow._tools.numerics import total
from afflow._tools.positive import positive
from afflow._tools.shapes import check_size
from afflow.core.bijector import Bijector, of_one_event
from afflow.univariates.monotone import solve_monotone


class Planar(Bijector):
    r"""A shift along one direction by a nonlinear function of the position along another.

    $$y = x + \hat u \tanh(w^\top x + b), \qquad
    |\det J| = 1 + \kappa \tanh'(w^\top x + b), \qquad
    \hat u = u + (\kappa - w^\top u) \frac{w}{\|w\|^2},$$

    where $\kappa = w^\top \hat u$ is a smooth function of $w^\top u$. The bound $\kappa > -1$
    makes the map invertible. It starts as the identity, at $u = 0$. `forward` is explicit.
    `inverse` finds $a = w^\top x$ to rounding, as the only root of
    $a + \kappa \tanh(a + b) = w^\top y$; its derivatives use the implicit function theorem. To
    train densities, wrap the map in `Inverse`.

    Rezende and Mohamed 2015, arXiv:1505.05770, eqs. 10-12, 23.

    Args:
        dim: number of coordinates `D`.
        rngs: its `params` stream draws `w`.

    Raises:
        ValueError: if `dim < 1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> afflow.bijectors.Planar(2, rngs=nnx.Rngs(0)).forward(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        check_size("dim", dim)
        self.w = nnx.Param(jax.random.normal(draw_key(rngs), (dim,)) / dim**0.5)
        self.u = nnx.Param(jnp.zeros(dim))
        self.b = nnx.Param(jnp.zeros(()))
        self.event_shape = (dim,)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        w, u, b, kappa = self._parameters(x)
        h = jnp.tanh(jnp.sum(w * x) + b)
        return x + u * h, total(jnp.log1p(kappa * (1 - h**2)))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        w, u, b, kappa = self._parameters(y)
        a = solve_monotone(Partial(bend), jnp.sum(w * y), (kappa, jnp.ones_like(b), b))
        h = jnp.tanh(a + b)
        return y - u * h, -total(jnp.log1p(kappa * (1 - h**2)))

    def _parameters(self, like):
        w, u, b = (param[...].astype(like.dtype) for param in (self.w, self.u, self.b))
        along = jnp.sum(w * u)
        kappa = positive(along) - 1
        return w, u + (kappa - along) * w / jnp.sum(w * w), b, kappa


def bend(a: jax.Array, params: tuple[jax.Array, jax.Array, jax.Array]):
    r"""Return $a + r \tanh(\tilde r a + b)$ and the log of its slope, for $r \tilde r > -1$."""
    r, r_tilde, b = params
    h = jnp.tanh(r_tilde * a + b)
    return a + r * h, jnp.log1p(r * r_tilde * (1 - h**2))
