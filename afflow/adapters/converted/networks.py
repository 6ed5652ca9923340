"""Plain networks of couplings with the weights of another library."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.lowering import multiply
from afflow._tools.outline import Outlined
from afflow.adapters.converted.parts import to_jax
from afflow.nets.mlp import MLP

Layer = tuple[np.ndarray, np.ndarray]
"""The kernel `(rows, columns)` and the bias `(rows,)` of a linear map."""


def build_mlp(
    layers: Sequence[Layer], shape: tuple[int, int], context_dim: int, activation: Callable
) -> MLP:
    """Return an MLP with given weights.

    Args:
        layers: the linear maps. The first reads the event, then the context.
        shape: the number of coordinates that get parameters, and of parameters for each.
        context_dim: length of the context vector; 0 for none.
        activation: the elementwise nonlinearity.
    """
    hidden = tuple(len(bias) for _, bias in layers[:-1])
    num_inputs = layers[0][0].shape[1] - context_dim
    options = {"context_dim": context_dim, "activation": activation, "rngs": nnx.Rngs(0)}
    mlp = MLP(num_inputs, *shape, hidden, **options)
    mlp.kernels = nnx.List([nnx.Param(to_jax(kernel)) for kernel, _ in layers])
    mlp.biases = nnx.List([nnx.Param(to_jax(bias)) for _, bias in layers])
    return mlp


class GatedResNet(Outlined, nnx.Module):
    r"""The residual network of nflows, whose blocks are gated by the context.

    $$h \leftarrow h + \sigma_s(G h_c + g) \odot (W' \sigma(W \sigma(h) + b) + b').$$

    There is no activation in front of the last map. Without a context there are no gates.

    Args:
        layers: the first map, which reads the event and then the context; two maps per block;
            the last map.
        gates: one map of the context for each block, or none.
        num_params: parameters per coordinate `P`.
        activation: the nonlinearity $\sigma$.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        gates: Sequence[Layer],
        num_params: int,
        activation: Callable[[jax.Array], jax.Array],
    ):
        self.context_shape = (gates[0][0].shape[1],) if gates else None
        self.num_params = num_params
        self.activation = activation
        self.kernels, self.biases = hold_layers(layers)
        self.gate_kernels, self.gate_biases = hold_layers(gates)

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return parameters `(num_outputs, P)` from `x` `(num_inputs,)`."""
        h = self._map(0, x if context is None else jnp.concatenate([x, context]))
        for block in range(len(self.kernels) // 2 - 1):
            update = self._map(2 * block + 1, self.activation(h))
            update = self._map(2 * block + 2, self.activation(update))
            h = h + update * self._gate(block, context)
        return self._map(len(self.kernels) - 1, h).reshape(-1, self.num_params)

    def _map(self, layer, h):
        return multiply(self.kernels[layer][...], h) + self.biases[layer][...]

    def _gate(self, block, context):
        if context is None:
            return 1
        logits = multiply(self.gate_kernels[block][...], context) + self.gate_biases[block][...]
        return jax.nn.sigmoid(logits)


def hold_layers(layers: Sequence[Layer]) -> tuple[nnx.List, nnx.List]:
    """Return the kernels and the biases of linear maps as parameters."""
    kernels = nnx.List([nnx.Param(to_jax(kernel)) for kernel, _ in layers])
    return kernels, nnx.List([nnx.Param(to_jax(bias)) for _, bias in layers])
