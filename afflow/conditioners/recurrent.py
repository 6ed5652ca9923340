"""Recurrent networks: a state that each token changes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree

from afflow._tools.arguments import check_callable, check_rngs
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import check_widths
from afflow.core.conditioner import Conditioner

Cell = Callable[..., Any]
"""`cell(num_inputs, num_units, rngs=rngs)` builds a recurrent cell as those of `flax.nnx`."""


class Recurrent(Conditioner):
    r"""A recurrent network over the tokens, in one or several layers.

    $$s_{t+1}, o_t = r(s_t, [x_{t-1}, h]), \qquad p_t = V o_t + b,$$

    with the context $h$. The first state $s_0$ is learned and linear in the context. The token
    before the first one, $x_{-1}$, is learned as well. A density takes one scan over the tokens,
    and so does a sample. The output weights start at zero.

    Elman 1990; Hochreiter and Schmidhuber 1997 (LSTM); Cho et al. 2014, arXiv:1406.1078 (GRU).

    Args:
        length: number of tokens `T`.
        num_params: parameters per token `P`.
        hidden: widths of the recurrent layers.
        features: values in a token, 1 for a scalar. With more, an event is `(T, features)`.
        cell: builds the cell of a layer: `nnx.OptimizedLSTMCell`, `nnx.GRUCell`, `nnx.SimpleCell`,
            or a `functools.partial` of them.
        context_dim: length of the context vector; 0 for none.
        residual: whether a layer adds its output to its input where both have one width.
        dropout: the probability to drop an output of a layer before it enters the next layer or the
            output weights, during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> network = afflow.conditioners.Recurrent(5, 2, (8, 8), rngs=nnx.Rngs(0))
        >>> network(jnp.ones(5)).shape, network.with_length(9)(jnp.ones(9)).shape
        ((5, 2), (9, 2))
    """

    knows_length = False
    is_serial = True

    def __init__(
        self,
        length: int,
        num_params: int,
        hidden: tuple[int, ...] = (128,),
        *,
        features: int = 1,
        cell: Cell = nnx.OptimizedLSTMCell,
        context_dim: int = 0,
        residual: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        shapes = length, num_params, hidden
        self._set_sizes(*shapes, features=features, context_dim=context_dim, dropout=dropout)
        check_widths(hidden, least=1)
        check_callable("cell", cell, "nnx.GRUCell")
        check_rngs(rngs)
        self.residual = residual
        sizes = (features + context_dim, *hidden)
        self.cells = nnx.List(
            [cell(sizes[i], size, rngs=rngs) for i, size in enumerate(hidden)],
        )
        num_states = len(ravel_pytree(self._zero_state())[0])
        self.x_first = nnx.Param(jnp.zeros(features))
        self.s_first = nnx.Param(jnp.zeros(num_states))
        self.U = nnx.Param(jnp.zeros((num_states, context_dim)))
        self.V = nnx.Param(jnp.zeros((num_params, hidden[-1])))
        self.b = nnx.Param(jnp.zeros(num_params))

    def __call__(self, x, context=None):
        return self.read(x, self.begin(context, x.dtype))[0]

    def init_cache(self, context=None, dtype=float):
        start = self.s_first[...]
        start = start if context is None else start + self.U[...] @ context
        dtype = jnp.result_type(start, dtype)
        zeros = jax.tree.map(lambda leaf: leaf.astype(dtype), self._zero_state())
        return ravel_pytree(zeros)[1](start.astype(dtype)), context

    def step(self, x_prev, t, cache):
        state, context = cache
        x_prev = jnp.where(t == 0, self.x_first[...], jnp.atleast_1d(x_prev))
        out, state = self._advance(x_prev, state, context, None)
        return self.V[...] @ out + self.b[...], (state, context)

    def prefill(self, x_prev, t, cache, key=None):
        state, context = cache
        places = t + jnp.arange(len(x_prev))
        x_prev = x_prev.reshape(len(x_prev), self.features)
        x_prev = jnp.where((places == 0)[:, None], self.x_first[...][None], x_prev)

        def body(state, scanned):
            x_prev, t = scanned
            step_key = None if key is None else jax.random.fold_in(key, t)
            out, state = self._advance(x_prev, state, context, step_key)
            return state, out

        state, out = jax.lax.scan(body, state, (x_prev, places))  # (n, H)
        return multiply_rows(out, self.V[...].T) + self.b[...][None], (state, context)

    def _advance(self, x_prev, state, context, key):
        """Return the output of the last layer and the new state of every layer."""
        h = x_prev if context is None else jnp.concatenate([x_prev, context])
        new = []
        for i, (cell, carry) in enumerate(zip(self.cells, state, strict=True)):
            carry, out = cell(carry, h)
            out = out + h if self.residual and out.shape == h.shape else out
            h = self._drop(key, i, out)
            new.append(carry)
        return h, new

    def _zero_state(self) -> list:
        rngs = nnx.Rngs(0)
        return [cell.initialize_carry((1,), rngs) for cell in self.cells]
