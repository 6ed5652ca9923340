"""Diagonal BiLSTM: a recurrent network over the diagonals of an image, from both sides."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.products import multiply_rows
from afflow._tools.shapes import Shape, check_size
from afflow.conditioners.pixels.lstm import (
    FirstConvolution,
    PixelGates,
    PixelReadout,
    ResidualSum,
    draw,
    update,
)
from afflow.conditioners.pixels.pixelcnn import check_plane
from afflow.core.conditioner import Conditioner


class DiagonalLSTM(Conditioner):
    r"""LSTM layers over the diagonals of an image: a pixel sees every pixel before it.

    A layer has two LSTMs. In the first LSTM, pixel $(i, j)$ reads the states of the pixel to the
    left and of the pixel above:

    $$(o, f, i, g)_{ij} = W_l\, h_{l,ij} + U_l\, s_{i,j-1} + V_l\, s_{i-1,j} + b_l, \qquad
    c_{ij} = \sigma(f) \odot c_{i,j-1} + \sigma(i) \odot \tanh g, \qquad
    s_{ij} = \sigma(o) \odot \tanh c_{ij}.$$

    The second LSTM has other weights and runs from the right side: pixel $(i, j)$ reads the states
    $r_{i,j+1}$ and $r_{i-1,j}$. Its map moves down by a row before the sum:

    $$h_0 = W_A * x + b, \qquad h_{l+1,ij} = h_{l,ij} + O_l\, (s_{ij} + r_{i-1,j}) + o_l, \qquad
    p = B\, \mathrm{relu}(A\, \mathrm{relu}(h_L)).$$

    The first convolution has a mask of type A, which excludes the present pixel. The image gets one
    column of zeros at the right. The features there see the last pixel of their row, and the second
    LSTM carries them to all pixels of the next row. Without the column, most pixels of a row would
    not see the last pixel of the row above. A state has `channels` features, and $h_l$ has twice as
    many. The tokens are the pixels in raster order.

    A density takes one scan over the diagonals in each layer. In decoding, a step computes one
    pixel of the first LSTM in every layer. The first step of a row computes the row above of the
    second LSTM. The output weights start at zero.

    van den Oord et al. 2016, arXiv:1601.06759.

    Args:
        shape: `(H, W)`.
        num_params: parameters per pixel `P`.
        channels: features of a state.
        num_layers: number of layers `L`.
        kernel_size: rows and columns of the first convolution, odd, at least 3.
        features: numbers in a pixel, 1 for a scalar. With more, an event is `(H W, features)`.
        context_dim: length of the context vector, which enters every gate; 0 for none.
        dropout: the probability to drop a feature of the summed states before it enters the
            residual sum, during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, even sizes of kernels, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"channels": 8, "num_layers": 2}
        >>> network = afflow.conditioners.DiagonalLSTM((3, 4), 1, **sizes, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(12)).shape
        (12, 1)
    """

    def __init__(
        self,
        shape: Shape,
        num_params: int,
        *,
        channels: int = 32,
        num_layers: int = 7,
        kernel_size: int = 7,
        features: int = 1,
        context_dim: int = 0,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.shape = check_plane(shape)
        sizes = math.prod(self.shape), num_params, (channels,)
        self._set_sizes(*sizes, features=features, context_dim=context_dim, dropout=dropout)
        check_size("num_layers", num_layers)
        self.first = FirstConvolution(features, 2 * channels, kernel_size, rngs)
        self.layers = nnx.List(
            [_DiagonalLayer(channels, context_dim, rngs) for _ in range(num_layers)]
        )
        self.readout = PixelReadout(2 * channels, num_params, rngs)

    def __call__(self, x, context=None):
        return self._pass(x, context, None)

    def _pass(self, x, context, key):
        height, width = self.shape
        image = jnp.pad(x.reshape(height, width, -1), ((0, 0), (0, 1), (0, 0)))
        h = self.first(image)  # (H (W + 1), 2 C)
        for number, layer in enumerate(self.layers):
            hidden = layer.run(h, height, context)
            h = layer.join(h, self._drop(key, number, hidden))
        h = h.reshape(height, width + 1, -1)[:, :-1]
        return self.readout(h.reshape(height * width, -1))

    def init_cache(self, context=None, dtype=float):
        width, dtype = self.shape[1] + 1, jnp.result_type(self.readout.A[...], dtype)
        pixels = self.first.reach.make_buffer(width, self.features, dtype)
        return pixels, [layer.make_state(width, dtype) for layer in self.layers], context

    def step(self, x_prev, t, cache):
        pixels, states, context = cache
        width = self.shape[1]
        x_prev = jnp.where(t == 0, 0, jnp.atleast_1d(x_prev))[None, None]
        pixels = self.first.reach.put(pixels, x_prev, (t - 1) // width, (t - 1) % width)
        i, j = t // width, t % width

        def end_row(states):
            _, states = self._step(pixels, i - 1, width, states, context)
            return _run_back(self.layers, states, context)

        states = jax.lax.cond((j == 0) & (t > 0), end_row, lambda same: same, states)
        h, states = self._step(pixels, i, j, states, context)
        return self.readout(h)[0], (pixels, states, context)

    def _step(self, pixels, i, j, states, context):
        """Return the last features `(1, 2 C)` of pixel `(i, j)`, and the new states."""
        h, new = self.first.at(pixels, i, j), []
        for layer, state in zip(self.layers, states, strict=True):
            h, state = layer.step(h, j, state, context)
            new.append(state)
        return h, new


class _DiagonalState(NamedTuple):
    """The state of decoding of a layer, with places for `W + 1` columns."""

    inputs: jax.Array  # the features of the present row, (W + 1, 2 C)
    forth: jax.Array  # hidden states of the first LSTM: the present row, then the row above
    cell: jax.Array  # the cell of the first LSTM at the pixel to the left, (1, C)
    back: jax.Array  # hidden states of the second LSTM in the row above, (W + 1, C)


class _DiagonalLayer(nnx.Module):
    """The two LSTMs of a layer, and the residual sum."""

    def __init__(self, channels, context_dim, rngs):
        self.forth, self.back = (_DiagonalHalf(channels, context_dim, rngs) for _ in range(2))
        self.join = ResidualSum(channels, rngs)

    def run(self, h, height, context):
        """Return the sum of both maps of hidden states, `(H W, C)`."""

        def split(rows):
            return rows.reshape(height, -1, rows.shape[-1])

        forth = self.forth.run(split(self.forth.gates(h, context)))
        back = self.back.run(split(self.back.gates(h, context))[:, ::-1])[:, ::-1]
        hidden = forth + jnp.pad(back, ((1, 0), (0, 0), (0, 0)))[:-1]
        return hidden.reshape(len(h), -1)

    def make_state(self, width, dtype):
        """Return the state of decoding before the first pixel."""
        channels = self.join.O.shape[0]
        sizes = (width, 2 * channels), (width, channels), (1, channels), (width, channels)
        return _DiagonalState(*(jnp.zeros(size, dtype) for size in sizes))

    def step(self, h, j, state, context):
        """Return the next features `(1, 2 C)` of column `j`, and the next state."""
        above = jax.lax.dynamic_slice_in_dim(state.forth, j, 1)
        left = jax.lax.dynamic_slice_in_dim(state.forth, jnp.maximum(j - 1, 0), 1)
        left, cell = jnp.where(j == 0, 0, left), jnp.where(j == 0, 0, state.cell)
        gates = self.forth.gates(h, context) + self.forth.read(left, above)
        hidden, cell = update(gates, cell)
        inputs = jax.lax.dynamic_update_slice_in_dim(state.inputs, h, j, 0)
        forth = jax.lax.dynamic_update_slice_in_dim(state.forth, hidden, j, 0)
        back = jax.lax.dynamic_slice_in_dim(state.back, j, 1)
        return self.join(h, hidden + back), _DiagonalState(inputs, forth, cell, state.back)


class _DiagonalHalf(nnx.Module):
    """The weights of an LSTM that runs from the left."""

    def __init__(self, channels, context_dim, rngs):
        self.gates = PixelGates(2 * channels, channels, context_dim, rngs)
        self.U, self.V = (draw(rngs, 2 * channels, channels, 4 * channels) for _ in range(2))

    def read(self, beside, above):
        """Return the contribution of earlier states to the gates."""
        return multiply_rows(beside, self.U[...]) + multiply_rows(above, self.V[...])

    def run(self, gates):
        """Return the hidden states `(H, W, C)` from the gates of the features `(H, W, 4 C)`.

        Places to the left of the image have zeros as gates, and therefore as states.
        """

        def body(state, gates):
            hidden, cell = state
            above = jnp.pad(hidden, ((1, 0), (0, 0)))[:-1]
            state = update(gates + self.read(hidden, above), cell)
            return state, state[0]

        zeros = jnp.zeros((gates.shape[0], gates.shape[2] // 4), gates.dtype)
        hidden = jax.lax.scan(body, (zeros, zeros), skew(gates).swapaxes(0, 1))[1]
        return unskew(hidden.swapaxes(0, 1))


def _run_back(layers, states, context):
    """Return the states after a row, with the row of the second LSTM in every layer."""
    pairs = list(zip([layer.back for layer in layers], states, strict=True))
    gates = [net.gates(state.inputs, context) + state.back @ net.V[...] for net, state in pairs]

    def body(carries, gates):
        carries = [
            update(a[None] + hidden @ net.U[...], cell)
            for (net, _), a, (hidden, cell) in zip(pairs, gates, carries, strict=True)
        ]
        return carries, [hidden[0] for hidden, _ in carries]

    zeros = [(jnp.zeros_like(state.cell),) * 2 for state in states]
    rows = jax.lax.scan(body, zeros, gates, reverse=True)[1]
    return [state._replace(back=row) for state, row in zip(states, rows, strict=True)]


def skew(z: jax.Array) -> jax.Array:
    """Move row `i` of an image `(H, W, C)` to the right by `i` columns: `(H, H + W - 1, C)`."""
    height, width, channels = z.shape
    padded = jnp.pad(z, ((0, 0), (0, height), (0, 0))).reshape(-1, channels)
    return padded[: height * (height + width - 1)].reshape(height, -1, channels)


def unskew(z: jax.Array) -> jax.Array:
    """Return the image `(H, W, C)` from its skewed form `(H, H + W - 1, C)`."""
    height, total, channels = z.shape
    padded = jnp.pad(z.reshape(-1, channels), ((0, height), (0, 0)))
    return padded.reshape(height, total + 1, channels)[:, : total + 1 - height]
