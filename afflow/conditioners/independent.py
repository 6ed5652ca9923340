"""One small network for each coordinate, with no weights shared."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_callable, draw_key
from afflow.core.conditioner import Conditioner, place


class IndependentMLPs(Conditioner):
    r"""A separate network for every conditional.

    $$p_t = V_t\, \sigma(W_t\, [h, x_{<t}] + c_t) + b_t$$

    with the context $h$. No weights are shared, so parameters and time are $O(D^2 H)$; NADE and
    MADE share them. The output weights start at zero.

    Bengio & Bengio 2000 (NIPS 12).

    Args:
        dim: number of coordinates `D`.
        num_params: parameters per coordinate `P`.
        hidden: number of hidden units `H` of each network.
        features: numbers that encode a coordinate, 1 for a scalar. With more, an event is
            `(D, features)`.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> net = afflow.conditioners.IndependentMLPs(5, 2, 8, rngs=nnx.Rngs(0))
        >>> net(jnp.ones(5)).shape
        (5, 2)
    """

    def __init__(
        self,
        dim: int,
        num_params: int,
        hidden: int = 20,
        *,
        features: int = 1,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
        rngs: nnx.Rngs,
    ):
        check_callable("activation", activation, "jax.nn.relu")
        self._set_sizes(dim, num_params, (hidden,), features=features, context_dim=context_dim)
        self.activation = activation
        width = context_dim + dim * features
        seen = jnp.asarray([max(self._seen(t), 1) for t in range(dim)], float)
        draw = jax.random.normal(draw_key(rngs), (dim, hidden, width))
        self.W = nnx.Param(draw / jnp.sqrt(seen)[:, None, None])
        self.c = nnx.Param(jnp.zeros((dim, hidden)))
        self.V = nnx.Param(jnp.zeros((dim, num_params, hidden)))
        self.b = nnx.Param(jnp.zeros((dim, num_params)))

    def __call__(self, x, context=None):
        weights = self.W[...], self.c[...], self.V[...], self.b[...]
        times = jnp.arange(self.event_shape[0])
        return jax.vmap(self._row, (0, 0, None))(weights, times, _join(x, context))

    def step(self, x_prev, t, cache):
        x, context = cache
        x = place(x, x_prev, t - 1)
        weights = self.W[t], self.c[t], self.V[t], self.b[t]
        return self._row(weights, t, _join(x, context)), (x, context)

    def _row(self, weights, t, inputs):
        W, c, V, b = weights
        W = jnp.where(jnp.arange(W.shape[1]) < self._seen(t), W, 0)
        return V @ self.activation(W @ inputs + c) + b  # (P,)

    def _seen(self, t):
        """Return the number of inputs that network `t` sees; the context comes before the event."""
        return (self.context_shape[0] if self.context_shape else 0) + t * self.features


def _join(x, context):
    x = x.reshape(-1)
    return x if context is None else jnp.concatenate([context, x])
