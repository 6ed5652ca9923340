"""The parts that PixelRNNs share: the masked convolution, the LSTM cell, and the residual sum.

Features are rows `(n, C)`: one row for each pixel, in raster order.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.products import multiply_rows
from afflow._tools.shapes import check_size
from afflow.nets.raster import find_square_reach
from afflow.nets.weights import draw_normal


class FirstConvolution(nnx.Module):
    """A masked convolution of type A: the features of a pixel see nearby pixels before it."""

    def __init__(self, inputs: int, outputs: int, size: int, rngs: nnx.Rngs):
        check_size("kernel_size", size, least=3)
        self.reach = find_square_reach(size)
        seen = inputs * int(self.mask().sum())
        shape = self.reach.rows, self.reach.columns, inputs, outputs
        self.kernel = draw(rngs, seen, *shape)
        self.b = nnx.Param(jnp.zeros(outputs))

    def __call__(self, image: jax.Array) -> jax.Array:
        """Return the features `(H W, C')` of an image `(H, W, C)`."""
        h = self.reach.convolve(image, self._weights())
        return h.reshape(-1, h.shape[-1]) + self.b[...][None]

    def at(self, buffer: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
        """Return the features `(1, C')` of pixel `(i, j)`, from the buffer of the last rows."""
        return self.reach.convolve_at(buffer, i, j, self._weights())[0] + self.b[...][None]

    def mask(self) -> np.ndarray:
        """Return which places of the kernel come before the present pixel, `(rows, columns)`."""
        rows, columns = self.reach.rows, self.reach.columns
        present = (rows - 1) * columns + self.reach.left
        return np.arange(rows * columns).reshape(rows, columns) < present

    def _weights(self):
        return jnp.where(self.mask()[..., None, None], self.kernel[...], 0)


class PixelGates(nnx.Module):
    """The weights from the features and the context of a pixel to its gates."""

    def __init__(self, inputs: int, channels: int, context_dim: int, rngs: nnx.Rngs):
        self.W = draw(rngs, inputs, inputs, 4 * channels)
        self.C = draw(rngs, context_dim, context_dim, 4 * channels)
        self.b = nnx.Param(jnp.zeros(4 * channels).at[channels : 2 * channels].set(1.0))

    def __call__(self, h: jax.Array, context: jax.Array | None) -> jax.Array:
        """Return the gates `(n, 4 C)` of pixels from their features and from the context."""
        a = multiply_rows(h, self.W[...]) + self.b[...][None]
        return a if context is None else a + (context @ self.C[...])[None]


class ResidualSum(nnx.Module):
    """The sum of the features and a linear map of the hidden state."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.O = draw(rngs, channels, channels, 2 * channels)
        self.o = nnx.Param(jnp.zeros(2 * channels))

    def __call__(self, h: jax.Array, hidden: jax.Array) -> jax.Array:
        """Return the next features `(n, 2 C)`."""
        return h + multiply_rows(hidden, self.O[...]) + self.o[...][None]


class PixelReadout(nnx.Module):
    """Two linear maps with rectifiers. The weights of the second map start at zero."""

    def __init__(self, channels: int, num_params: int, rngs: nnx.Rngs):
        self.A = draw(rngs, channels / 2, channels, channels)
        self.a = nnx.Param(jnp.zeros(channels))
        self.B = nnx.Param(jnp.zeros((channels, num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    def __call__(self, h: jax.Array) -> jax.Array:
        """Return the parameters `(n, P)` of pixels."""
        h = multiply_rows(jax.nn.relu(h), self.A[...]) + self.a[...][None]
        return multiply_rows(jax.nn.relu(h), self.B[...]) + self.b[...][None]


def update(gates: jax.Array, cell: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the hidden state and the cell of an LSTM, `(n, C)` each, from gates `(n, 4 C)`."""
    o, f, i, g = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def draw(rngs: nnx.Rngs, num_inputs: float, *shape: int) -> nnx.Param:
    """Return normal weights whose variance is one over the number of inputs."""
    return draw_normal(rngs, 1 / max(num_inputs, 1), *shape)
