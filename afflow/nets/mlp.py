"""A plain network, for couplings."""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_callable, draw_key
from afflow._tools.lowering import multiply
from afflow._tools.outline import Outlined
from afflow._tools.shapes import check_size, check_widths


class MLP(Outlined, nnx.Module):
    """A multilayer perceptron that maps a vector and a context to parameters of coordinates.

    The output layer starts at zero, so a flow starts as the identity.

    Args:
        num_inputs: length of the input; may be 0 if there is a context.
        num_outputs: number of coordinates that get parameters.
        num_params: parameters per coordinate `P`.
        hidden: widths of the hidden layers.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> afflow.MLP(3, 2, 5, rngs=nnx.Rngs(0))(jnp.ones(3)).shape
        (2, 5)
    """

    def __init__(
        self,
        num_inputs: int,
        num_outputs: int,
        num_params: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        rngs: nnx.Rngs,
    ):
        check_size("num_inputs", num_inputs, least=0)
        check_size("num_outputs", num_outputs)
        check_size("num_params", num_params)
        check_widths(hidden, context_dim)
        self.context_shape = (context_dim,) if context_dim else None
        self.num_params = num_params
        check_callable("activation", activation, "jax.nn.tanh")
        self.activation = activation
        sizes = (num_inputs + context_dim, *hidden, num_outputs * num_params)
        init = jax.nn.initializers.variance_scaling(1.0, "fan_in", "normal", -1, -2)
        self.kernels = nnx.List(
            [nnx.Param(init(draw_key(rngs), (o, max(i, 1)))[:, :i]) for i, o in pairwise(sizes)]
        )
        self.kernels[-1] = nnx.Param(jnp.zeros((sizes[-1], sizes[-2])))
        self.biases = nnx.List([nnx.Param(jnp.zeros(size)) for size in sizes[1:]])

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return parameters `(num_outputs, P)` from `x` `(num_inputs,)`."""
        h = x if context is None else jnp.concatenate([x, context])
        for kernel, bias in zip(self.kernels[:-1], self.biases[:-1], strict=True):
            h = self.activation(multiply(kernel[...], h) + bias[...])
        out = multiply(self.kernels[-1][...], h) + self.biases[-1][...]
        return out.reshape(-1, self.num_params)
