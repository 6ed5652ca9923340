"""NADE: one running pre-activation for all the conditionals."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_callable, draw_key
from afflow._tools.scans import scan_in_chunks
from afflow.core.conditioner import Conditioner, given


class NADE(Conditioner):
    r"""The neural autoregressive distribution estimator, with weights shared by all conditionals.

    $$a_0 = c + U h, \qquad p_t = V_t\, \sigma(\rho_t a_t) + b_t, \qquad
    a_{t+1} = a_t + W_t x_t,$$

    with the context $h$. The density of an event and a sample both take $O(D H)$ time. The
    backward pass keeps $O(\sqrt D H)$ numbers. The output weights start at zero.

    Larochelle & Murray 2011 (AISTATS); with $\rho$ Uria et al. 2013, arXiv:1306.0186.

    Args:
        dim: number of coordinates `D`.
        num_params: parameters per coordinate `P`.
        hidden: number of hidden units `H`.
        features: numbers that encode a coordinate, 1 for a scalar. With more, an event is
            `(D, features)`.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        rescale: whether to learn the scale $\rho_t$ of the activations, otherwise 1.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> nade = afflow.conditioners.NADE(5, 2, 8, rngs=nnx.Rngs(0))
        >>> nade(jnp.ones(5)).shape
        (5, 2)
    """

    is_serial = True

    def __init__(
        self,
        dim: int,
        num_params: int,
        hidden: int = 500,
        *,
        features: int = 1,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.sigmoid,
        rescale: bool = False,
        rngs: nnx.Rngs,
    ):
        check_callable("activation", activation, "jax.nn.relu")
        self._set_sizes(dim, num_params, (hidden,), features=features, context_dim=context_dim)
        self.activation = activation
        scale = 1 / math.sqrt(dim * features)
        draw = jax.random.normal(draw_key(rngs), (dim, features, hidden))
        self.W = nnx.Param(scale * draw)
        self.V = nnx.Param(jnp.zeros((dim, num_params, hidden)))
        self.b = nnx.Param(jnp.zeros((dim, num_params)))
        self.c = nnx.Param(jnp.zeros(hidden))
        draw = jax.random.normal(draw_key(rngs), (hidden, context_dim))
        self.U = nnx.Param(draw / math.sqrt(max(context_dim, 1)))
        self.rho = nnx.Param(jnp.ones(dim)) if rescale else None

    def __call__(self, x, context=None):
        return self.decode(given, x, context)[1]

    def init_cache(self, context=None, dtype=float):
        a = self.c[...] if context is None else self.c[...] + self.U[...] @ context
        return a.astype(jnp.result_type(a, dtype))

    def step(self, x_prev, t, cache):
        weights = self._weights()
        added = _add(cache, jax.tree.map(lambda w: w[t - 1], weights), x_prev)
        a = jnp.where(t == 0, cache, added)
        return self._read(a, jax.tree.map(lambda w: w[t], weights)), a

    def decode(self, emit, inputs, context=None):
        def body(a, scanned):
            weights, input_t = scanned
            x_t, aux_t = emit(input_t, self._read(a, weights))
            return _add(a, weights, x_t), (x_t, aux_t)

        a = self.init_cache(context, _get_float_of(inputs))
        return scan_in_chunks(body, a, (self._weights(), inputs))

    def _weights(self):
        rho = None if self.rho is None else self.rho[...]
        return self.W[...], self.V[...], self.b[...], rho

    def _read(self, a, weights):
        _, V, b, rho = weights
        return V @ self.activation(a if rho is None else rho * a) + b  # (P,)


def _add(a, weights, x):
    return (a + jnp.atleast_1d(x) @ weights[0]).astype(a.dtype)


def _get_float_of(inputs):
    dtype = jax.tree.leaves(inputs)[0].dtype
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.bfloat16
