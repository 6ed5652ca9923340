"""The Sylvester flow: several planar moves at once, in orthogonal directions."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.linalg import solve_triangular
from jax.tree_util import Partial

from afflow._tools.arguments import draw_key
from afflow._tools.numerics import total
from afflow._tools.positive import positive
from afflow._tools.shapes import check_size
from afflow.bijectors.linear import product, reflect, reflect_back
from afflow.bijectors.planar import bend
from afflow.core.bijector import Bijector, of_one_event
from afflow.univariates.monotone import solve_monotone


class Sylvester(Bijector):
    r"""A nonlinear move within a subspace of `M` of the `D` dimensions.

    $$y = x + Q R \tanh(\tilde R Q^\top x + b), \qquad
    |\det J| = \prod_i 1 + R_{ii} \tilde R_{ii} \tanh'(\tilde R Q^\top x + b)_i,$$

    with $Q$ `(D, M)` orthonormal, made of `M` Householder reflections, and $R$, $\tilde R$ upper
    triangular. The bound $R_{ii} \tilde R_{ii} > -1$ makes the map invertible. It starts as the
    identity, at $R = 0$. `forward` is explicit. `inverse` solves
    $v + R \tanh(\tilde R v + b) = Q^\top y$ for $v = Q^\top x$, from the last coordinate to the
    first. Each coordinate is the only root of an increasing scalar function, found to rounding;
    derivatives use the implicit function theorem. To train densities, wrap the map in `Inverse`.

    Van den Berg et al. 2018, arXiv:1803.05649, section 3, H-SNF.

    Args:
        dim: number of coordinates `D`.
        rank: the dimension `M <= D` of the subspace; 1 is a `Planar`.
        rngs: its `params` stream draws the reflections.

    Raises:
        ValueError: unless `1 <= rank <= dim`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> afflow.bijectors.Sylvester(3, 2, rngs=nnx.Rngs(0)).forward(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, dim: int, rank: int, *, rngs: nnx.Rngs):
        check_size("dim", dim)
        check_size("rank", rank)
        if rank > dim:
            raise ValueError(f"Expected rank <= dim, got {rank} and {dim}.")
        self.reflections = nnx.Param(jax.random.normal(draw_key(rngs), (rank, dim)))
        self.r = nnx.Param(jnp.zeros((rank, rank)))  # lower triangles are not read
        self.r_tilde = nnx.Param(jnp.zeros((rank, rank)))
        self.b = nnx.Param(jnp.zeros(rank))
        self.event_shape = (dim,)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        r, r_tilde, b = self._parameters(x)
        h = jnp.tanh(product(r_tilde, self._project(x)) + b)
        return x + self._embed(product(r, h)), _log_det(r, r_tilde, h)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        r, r_tilde, b = self._parameters(y)
        v = _solve(r, r_tilde, b, self._project(y))
        h = jnp.tanh(product(r_tilde, v) + b)
        return y - self._embed(product(r, h)), -_log_det(r, r_tilde, h)

    def _project(self, x):
        """Return `Q^T x`, `(M,)`."""
        return reflect_back(self.reflections[...].astype(x.dtype), x)[: len(self.b[...])]

    def _embed(self, v):
        """Return `Q v`, `(D,)`."""
        padded = jnp.pad(v, (0, self.event_shape[0] - len(v)))
        return reflect(self.reflections[...].astype(v.dtype), padded)

    def _parameters(self, like):
        r, r_tilde = self.r[...], self.r_tilde[...]
        diagonal = positive(jnp.diag(r_tilde))
        kappa = positive(jnp.diag(r)) - 1
        r = jnp.triu(r, 1) + jnp.diag(kappa / diagonal)
        r_tilde = jnp.triu(r_tilde, 1) + jnp.diag(diagonal)
        return tuple(a.astype(like.dtype) for a in (r, r_tilde, self.b[...]))


def _log_det(r: jax.Array, r_tilde: jax.Array, h: jax.Array) -> jax.Array:
    return total(jnp.log1p(jnp.diag(r) * jnp.diag(r_tilde) * (1 - h**2)))


def _solve(r: jax.Array, r_tilde: jax.Array, b: jax.Array, w: jax.Array) -> jax.Array:
    """Return the `v` `(M,)` with `v + r tanh(r_tilde v + b) = w`, with derivatives."""

    def residual(v):
        return v + product(r, jnp.tanh(product(r_tilde, v) + b)) - w

    def tangent_solve(g, y):  # the Jacobian of the residual is upper triangular too
        return solve_triangular(jax.vmap(g)(jnp.eye(len(y), dtype=y.dtype)).T, y)

    def solve(_, w):
        return _substitute(r, r_tilde, b, w)

    return jax.lax.custom_root(residual, w, solve, tangent_solve)


def _substitute(r, r_tilde, b, w):
    """Solve `v + r tanh(r_tilde v + b) = w` for `v`, coordinate by coordinate from the last."""

    def step(state, i):
        v, h = state  # coordinates 0..i are still zero
        c, target = product(r_tilde[i], v) + b[i], w[i] - product(r[i], h)
        v_i = solve_monotone(Partial(bend), target, (r[i, i], r_tilde[i, i], c))
        return (v.at[i].set(v_i), h.at[i].set(jnp.tanh(r_tilde[i, i] * v_i + c))), None

    zeros = jnp.zeros_like(w)
    (v, _), _ = jax.lax.scan(step, (zeros, zeros), np.arange(len(w))[::-1])
    return v
