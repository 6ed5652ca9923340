"""A masked network whose layers are shifted by functions of the context."""

from collections.abc import Sequence

import jax
from flax import nnx

from afflow._tools.lowering import multiply
from afflow._tools.modules import copy_module
from afflow.adapters.converted.networks import Layer, hold_layers
from afflow.conditioners.made import MADE
from afflow.core.conditioner import Conditioner


class ShiftedMADE(Conditioner):
    r"""The masked network of nflows: a residual `MADE` with the context in every block.

    The context $c$ adds $\sigma(A_0 c + a_0)$ to the first hidden layer, and $A_k c + a_k$ to the
    first layer of residual block $k$. Decoding runs the `MADE` with biases that include the sums.

    Args:
        made: the network of the event, without a context.
        shifts: the maps $A_0, A_1, \dots$ of the context, of length `C`.
    """

    def __init__(self, made: MADE, shifts: Sequence[Layer]):
        self.made = made
        self.event_shape = made.event_shape
        self.context_shape = (shifts[0][0].shape[1],)
        self.num_params = made.num_params
        self.kernels, self.biases = hold_layers(shifts)

    def __call__(self, x, context=None):
        return self._at(context)(x)

    def init_cache(self, context=None, dtype=float):
        return self._at(context).init_cache(dtype=dtype)

    def step(self, x_prev, t, cache):
        return self.made.step(x_prev, t, cache)

    def decode(self, emit, inputs, context=None):
        return self._at(context).decode(emit, inputs)

    def solve_tangent(self, x, context, gain, b):
        return self._at(context).solve_tangent(x, None, gain, b)

    def solve_cotangent(self, x, context, gain, source, b):
        return self._at(context).solve_cotangent(x, None, gain, source, b)

    def _at(self, context: jax.Array | None) -> MADE:
        """Return the network of the event with the shifts of one context in its biases."""
        if context is None:
            return self.made
        biases = list(self.made.biases)
        for number, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            shift = multiply(kernel[...], context) + bias[...]
            shift = shift if number else self.made.activation(shift)
            layer = max(2 * number - 1, 0)
            biases[layer] = nnx.Param(biases[layer][...] + shift)
        return copy_module(self.made, biases=nnx.List(biases))
