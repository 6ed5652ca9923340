"""DeepNADE: one network for the conditionals of all orders."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_callable, draw_key
from afflow._tools.shapes import check_sizes
from afflow.core.conditioner import given
from afflow.core.order_agnostic import OrderAgnostic, undo_order


class DeepNADE(OrderAgnostic):
    r"""A deep network that knows which coordinates it sees and predicts the rest.

    $$h_1 = \sigma\Big(c + U h + \sum_{i \text{ seen}} (W_i x_i + M_i)\Big), \qquad
    h_{l+1} = \sigma(L_l h_l + c_l), \qquad p_i = V_i h_L + b_i,$$

    with the context $h$ and the last hidden layer $h_L$. Training draws a random order and a
    random place $d$. The coordinates from place $d$ on are predicted together from the
    coordinates before $d$, and the sum of their terms is weighted by $D / (D - d)$. A density
    or a sample in one order takes one step per coordinate with a running pre-activation, in
    $O(D (H_1 + H_1 H_2 + \dots))$ time. The output weights start at zero.

    Uria, Murray & Larochelle 2014, arXiv:1310.1757; Uria et al. 2016, arXiv:1605.02226.

    Args:
        dim: number of coordinates `D`.
        num_params: parameters per coordinate `P`.
        hidden: widths of the hidden layers, at least one.
        features: numbers that encode a coordinate, 1 for a scalar. With more, an event is
            `(D, features)`.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> net = afflow.conditioners.DeepNADE(3, 2, (8,), rngs=nnx.Rngs(0))
        >>> net(jnp.ones(3), jnp.array([True, False, False])).shape
        (3, 2)
    """

    draws_per_batch = False
    needs_random_orders = True

    def __init__(
        self,
        dim: int,
        num_params: int,
        hidden: tuple[int, ...] = (500, 500),
        *,
        features: int = 1,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        rngs: nnx.Rngs,
    ):
        check_callable("activation", activation, "jax.nn.relu")
        check_sizes(dim, num_params, hidden, context_dim, features)
        if not hidden:
            raise ValueError("Expected at least one hidden layer, got hidden=().")
        self.event_shape = (dim,) if features == 1 else (dim, features)
        self.context_shape = (context_dim,) if context_dim else None
        self.num_params = num_params
        self.activation = activation

        def draw(scale, *shape):
            return nnx.Param(scale * jax.random.normal(draw_key(rngs), shape))

        self.W = draw((dim * features) ** -0.5, dim, features, hidden[0])
        self.M = nnx.Param(jnp.zeros((dim, hidden[0])))
        self.U = draw(max(context_dim, 1) ** -0.5, context_dim, hidden[0])
        self.L = nnx.List([draw((2 / n) ** 0.5, m, n) for n, m in pairwise(hidden)])
        self.c = nnx.List([nnx.Param(jnp.zeros(width)) for width in hidden])
        self.V = nnx.Param(jnp.zeros((dim, num_params, hidden[-1])))
        self.b = nnx.Param(jnp.zeros((dim, num_params)))

    def __call__(
        self, x: jax.Array, seen: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the parameters `(D, P)`, given `x` where the booleans `seen` `(D,)` are true."""
        codes = jnp.where(seen[:, None], x.reshape(len(seen), -1), 0)  # (D, F)
        a = self._start(context) + jnp.tensordot(codes, self.W[...], 2)
        h = self._hidden(a + seen.astype(a.dtype) @ self.M[...])
        return self.V[...] @ h + self.b[...]  # (D, P)

    def init_cache(self, draw, context=None):
        return self._start(context), draw.order

    def step(self, x_prev, t, cache):
        a, order = cache
        before, here = order[t - 1], order[t]
        seen = (jnp.atleast_1d(x_prev) @ self.W[before] + self.M[before]).astype(a.dtype)
        a = jnp.where(t == 0, a, a + seen)
        return self.V[here] @ self._hidden(a) + self.b[here], (a, order)

    def in_order(self, x, draw, context=None):
        return self.decode(given, x, draw, context)[1]

    def estimate(self, key, x, draw, context=None):
        dim = self.event_shape[0]
        d = jax.random.randint(key, (), 0, dim)
        seen = jnp.arange(dim) < d
        natural = undo_order(x, draw.order), undo_order(seen, draw.order)
        params = self(*natural, context)[draw.order]
        return params, jnp.where(seen, 0.0, dim / (dim - d))

    def _start(self, context):
        c = self.c[0][...]
        return c if context is None else c + context @ self.U[...]

    def _hidden(self, a):
        h = self.activation(a)
        for L, c in zip(self.L, self.c[1:], strict=True):
            h = self.activation(L[...] @ h + c[...])
        return h
