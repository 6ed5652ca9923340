"""A MADE with redrawn masks: agnostic of the order and of the connections."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_callable, draw_key
from afflow._tools.shapes import check_sizes
from afflow.core.conditioner import place
from afflow.core.order_agnostic import OrderAgnostic, undo_order


class AgnosticMADE(OrderAgnostic):
    r"""A MADE that draws its masks anew for every order and key.

    In an order $o$, input $x_{o_t}$ has the degree $t$. The degree of a hidden unit is drawn
    between the smallest degree of the layer before and $D - 2$. A hidden unit sees units of
    the same or a lower degree. Output $o_t$ sees hidden units of degrees below $t$, and through
    direct connections also inputs of degrees below $t$. Training uses one draw per minibatch.
    One pass gives all conditionals in one order. Decoding takes one pass per coordinate. The
    output layer starts at zero.

    Germain et al. 2015, arXiv:1502.03509, sections 4.2 and 4.3.

    Args:
        dim: number of coordinates `D`.
        num_params: parameters per coordinate `P`.
        hidden: widths of the hidden layers.
        features: numbers that encode a coordinate, 1 for a scalar. With more, an event is
            `(D, features)`.
        context_dim: length of the context vector, which has degree -1; 0 for none.
        activation: the elementwise nonlinearity.
        dropout: the probability that `estimate` drops a hidden unit, drawn anew for every
            event. The units that are kept are divided by `1 - dropout`.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes, or a probability, out of range.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> net = afflow.conditioners.AgnosticMADE(3, 2, (8,), rngs=nnx.Rngs(0))
        >>> draw = afflow.core.Draw(jnp.array([2, 0, 1]), jax.random.key(0))
        >>> net.in_order(jnp.ones(3), draw).shape
        (3, 2)
    """

    draws_per_batch = True
    needs_random_orders = False

    def __init__(
        self,
        dim: int,
        num_params: int,
        hidden: tuple[int, ...] = (500, 500),
        *,
        features: int = 1,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        check_callable("activation", activation, "jax.nn.relu")
        check_sizes(dim, num_params, hidden, context_dim, features)
        if not 0 <= dropout < 1:
            raise ValueError(f"Expected 0 <= dropout < 1, got {dropout}.")
        self.event_shape = (dim,) if features == 1 else (dim, features)
        self.context_shape = (context_dim,) if context_dim else None
        self.num_params = num_params
        self.activation = activation
        self.dropout = float(dropout)
        inputs, outputs = context_dim + dim * features, dim * num_params
        init = jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal", -1, -2)
        self.kernels = nnx.List(
            [nnx.Param(init(draw_key(rngs), (m, n))) for n, m in pairwise([inputs, *hidden])]
        )
        if hidden:
            self.kernels.append(nnx.Param(jnp.zeros((outputs, hidden[-1]))))
        self.direct = nnx.Param(jnp.zeros((outputs, inputs)))
        self.biases = nnx.List([nnx.Param(jnp.zeros(width)) for width in (*hidden, outputs)])

    def in_order(self, x, draw, context=None):
        return self._pass(x, draw.order, self._masks(draw), context)

    def init_cache(self, draw, context=None):
        x = jnp.zeros(self.event_shape, self.direct[...].dtype)
        return x, draw.order, self._masks(draw), context

    def step(self, x_prev, t, cache):
        x, *given = cache
        x = place(x, x_prev, t - 1)
        return self._pass(x, *given)[t], (x, *given)

    def estimate(self, key, x, draw, context=None):
        params = self._pass(x, draw.order, self._masks(draw), context, self._kept(key))
        return params, jnp.ones(self.event_shape[0])

    def _kept(self, key):
        """Return a scale for every unit of each hidden layer, 0 for the units dropped."""
        if not self.dropout:
            return None
        biases, rate = self.biases[:-1], 1 - self.dropout
        keys = jax.random.split(key, len(biases))
        pairs = zip(keys, biases, strict=True)
        return [jax.random.bernoulli(k, rate, bias[...].shape) / rate for k, bias in pairs]

    def _pass(self, x, order, masks, context, kept=None):
        """Return the parameters `(D, P)`; they and `x` are in the given order."""
        x = undo_order(x, order).reshape(-1)
        x = h = x if context is None else jnp.concatenate([context, x])
        *maps, direct = zip((*self.kernels, self.direct), masks, strict=True)
        for layer, (kernel, mask) in enumerate(maps):
            h = h if layer == 0 else self.activation(h)
            h = h if layer == 0 or kept is None else h * kept[layer - 1]
            h = jnp.where(mask, kernel[...], 0) @ h + self._bias(layer)
        h = h if len(maps) else self._bias(0)
        h = h + jnp.where(direct[1], direct[0][...], 0) @ x
        return h.reshape(-1, self.num_params)[order]  # (D, P)

    def _bias(self, layer):
        return self.biases[layer][...]

    def _masks(self, draw):
        """Return the masks `(rows, columns)` of the layers and of the direct connections."""
        (dim, *_), size = self.event_shape, self.context_shape
        rank = jnp.argsort(draw.order)
        first = jnp.full(size or 0, -1)
        inputs = jnp.concatenate([first, jnp.repeat(rank, self.features)])
        degrees, lowest = [inputs], -1 if size else 0
        for layer, bias in enumerate(self.biases[:-1]):
            key, shape = jax.random.fold_in(draw.key, layer), bias[...].shape
            drawn = jax.random.randint(key, shape, lowest, jnp.maximum(dim - 1, lowest + 1))
            degrees, lowest = [*degrees, drawn], drawn.min()
        outputs = jnp.repeat(rank, self.num_params) - 1  # an output sees degrees below its rank
        masks = [_sees(rows, cols) for cols, rows in pairwise(degrees)]
        if len(degrees) > 1:
            masks.append(_sees(outputs, degrees[-1]))
        return [*masks, _sees(outputs, inputs)]


def _sees(rows, cols):
    return rows[:, None] >= cols[None]
