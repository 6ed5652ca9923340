"""The unconstrained monotonic neural network."""

import math
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_positive, draw_key
from afflow._tools.bounds import bound_softly, linear_tails
from afflow._tools.shapes import Shape, check_size, check_widths
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.monotone import forward_by_search


class UMNN(Univariate):
    r"""The integral of a positive network on $[-B, B]$, with linear tails.

    $$x = \beta + \int_0^y f(t; h)\, dt, \qquad \log f(t; h) = h^T M\, \phi(t, h),$$

    from data to noise. The direction from noise to data is found numerically. The matrix $M$ and
    the tanh network $\phi$ are weights of the univariate. $\log f$ is bounded like the log-scale of
    `Affine`. The integral is a Gauss-Legendre sum. The log-determinant is the logarithm of the
    derivative of this sum, so densities are exact for the map as computed. The sum increases if
    its nodes resolve $f$. If they do not and the sum decreases, the log-determinant is NaN.

    The parameters are $\beta$ and the embedding $h$. Zeros give the identity.

    Wehenkel and Louppe 2019, arXiv:1908.05164. The paper uses Clenshaw-Curtis quadrature, the
    whole real line, and the integrand as the derivative.

    Args:
        embedding: length of $h$.
        hidden: widths of the layers of $\phi$.
        bound: `B`.
        num_nodes: number of nodes of the quadrature.
        max_log_scale: the bound on $|\log f|$.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes or bounds out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> umnn = afflow.univariates.UMNN(embedding=4, rngs=nnx.Rngs(0))
        >>> round(umnn.inverse(jnp.array(1.5), jnp.array([1.0, 0, 0, 0, 0])).item(), 4)
        2.5
    """

    def __init__(
        self,
        embedding: int = 16,
        hidden: tuple[int, ...] = (32, 32),
        bound: float = 5.0,
        num_nodes: int = 32,
        max_log_scale: float = 3.0,
        *,
        rngs: nnx.Rngs,
    ):
        check_size("embedding", embedding)
        check_size("num_nodes", num_nodes)
        check_widths(hidden, least=1)
        check_positive(bound=bound, max_log_scale=max_log_scale)
        self.num_nodes = num_nodes
        self.bound, self.max_log_scale = float(bound), float(max_log_scale)
        super().__init__(1 + embedding)
        widths = (1 + embedding, *hidden, embedding)
        shapes = [(after, before) for before, after in pairwise(widths)]
        self.kernels = nnx.List([_normal(shape, shape[1], rngs) for shape in shapes])
        self.biases = nnx.List([_normal((n,), 1, rngs) for n in hidden])

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return forward_by_search(self, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return linear_tails(partial(self._curve, context), y, self.bound)

    def _curve(self, params, y):
        beta, h = params[0], params[1:]
        nodes, weights = np.polynomial.legendre.leggauss(self.num_nodes)
        shares = jnp.asarray((1 + nodes) / 2, y.dtype)
        weights = jnp.asarray(weights / 2, y.dtype)

        def integral(y):
            return y * (weights @ jax.vmap(lambda t: self._f(t, h))(y * shares))

        area, slope = jax.jvp(integral, (y,), (jnp.ones_like(y),))
        return beta + area, slope

    def _f(self, t, h):
        phi = jnp.concatenate([t[None] / self.bound, h])
        for kernel, bias in zip(self.kernels[:-1], self.biases, strict=True):
            phi = jnp.tanh(kernel[...] @ phi + bias[...])
        return jnp.exp(bound_softly(h @ (self.kernels[-1][...] @ phi), self.max_log_scale))


def _normal(shape: Shape, num_inputs: int, rngs: nnx.Rngs) -> nnx.Param:
    return nnx.Param(jax.random.normal(draw_key(rngs), shape) / math.sqrt(num_inputs))
