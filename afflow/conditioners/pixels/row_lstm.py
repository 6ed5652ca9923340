"""Row LSTM: a recurrent network over the rows of an image."""

import math

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
from afflow.nets.raster import Reach, find_square_reach


class RowLSTM(Conditioner):
    r"""LSTM layers over the rows of an image: a pixel sees a triangle above it.

    $$(o, f, i, g) = W_l * h_l + U_l * s_{l, \text{row above}} + b_l, \qquad
    c = \sigma(f) \odot c_{\text{row above}} + \sigma(i) \odot \tanh g, \qquad
    s_l = \sigma(o) \odot \tanh c,$$

    $$h_0 = W_A * x + b, \qquad h_{l+1} = h_l + O_l\, s_l + o_l, \qquad
    p = B\, \mathrm{relu}(A\, \mathrm{relu}(h_L)).$$

    The first convolution has a mask of type A, which excludes the present pixel. The convolution
    $W_l$ reads the present pixel and the pixel to the left. The convolution $U_l$ reads the states
    of the row above. A layer computes the states row by row. A state has `channels` features, and
    $h_l$ has twice as many. The tokens are the pixels in raster order.

    A density takes one scan over the rows in each layer. A step of decoding computes one pixel of
    every layer, from the last row of states. The output weights start at zero.

    van den Oord et al. 2016, arXiv:1601.06759.

    Args:
        shape: `(H, W)`.
        num_params: parameters per pixel `P`.
        channels: features of a state.
        num_layers: number of LSTM layers `L`.
        kernel_size: rows and columns of the first convolution, odd, at least 3.
        state_kernel_size: states of the row above that a state reads, odd.
        features: numbers in a pixel, 1 for a scalar. With more, an event is `(H W, features)`.
        context_dim: length of the context vector, which enters every gate; 0 for none.
        dropout: the probability to drop a feature of a state before it enters the residual sum,
            during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, even sizes of kernels, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"channels": 8, "num_layers": 2}
        >>> network = afflow.conditioners.RowLSTM((3, 4), 1, **sizes, rngs=nnx.Rngs(0))
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
        state_kernel_size: int = 3,
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
        sizes = channels, state_kernel_size, context_dim
        self.layers = nnx.List([_RowLayer(*sizes, rngs) for _ in range(num_layers)])
        self.readout = PixelReadout(2 * channels, num_params, rngs)

    def __call__(self, x, context=None):
        return self._pass(x, context, None)

    def _pass(self, x, context, key):
        h = self.first(x.reshape(*self.shape, self.features))  # (H W, 2 C)
        for number, layer in enumerate(self.layers):
            left = jnp.pad(h.reshape(*self.shape, -1), ((0, 0), (1, 0), (0, 0)))[:, :-1]
            gates = layer.gates(jnp.concatenate([left.reshape(h.shape), h], 1), context)
            hidden = layer.run(gates.reshape(*self.shape, -1))
            h = layer.join(h, self._drop(key, number, hidden.reshape(len(h), -1)))
        return self.readout(h)

    def init_cache(self, context=None, dtype=float):
        width, dtype = self.shape[1], jnp.result_type(self.readout.A[...], dtype)
        pixels = self.first.reach.make_buffer(width, self.features, dtype)
        return pixels, [layer.make_state(width, dtype) for layer in self.layers], context

    def step(self, x_prev, t, cache):
        pixels, states, context = cache
        width = self.shape[1]
        x_prev = jnp.where(t == 0, 0, jnp.atleast_1d(x_prev))[None, None]
        pixels = self.first.reach.put(pixels, x_prev, (t - 1) // width, (t - 1) % width)
        i, j = t // width, t % width
        h, new = self.first.at(pixels, i, j), []
        for layer, state in zip(self.layers, states, strict=True):
            h, state = layer.step(h, i, j, state, context)
            new.append(state)
        return self.readout(h)[0], (pixels, new, context)


class _RowLayer(nnx.Module):
    """The weights of an LSTM over the rows.

    The state of decoding is the features of the pixel to the left, the hidden states of the last
    two rows, and the cells of the last row.
    """

    def __init__(self, channels, size, context_dim, rngs):
        self.reach = Reach(2, size, find_square_reach(size).left)
        self.gates = PixelGates(4 * channels, channels, context_dim, rngs)
        self.U = draw(rngs, size * channels, size * channels, 4 * channels)
        self.join = ResidualSum(channels, rngs)

    def run(self, gates):
        """Return the hidden states `(H, W, C)` from the gates of the features `(H, W, 4 C)`."""

        def body(state, gates):
            hidden, cell = state
            hidden, cell = update(
                gates + multiply_rows(self._find_windows(hidden), self.U[...]), cell
            )
            return (hidden, cell), hidden

        zeros = jnp.zeros((gates.shape[1], gates.shape[2] // 4), gates.dtype)
        return jax.lax.scan(body, (zeros, zeros), gates)[1]

    def _find_windows(self, hidden):
        """Return the states that each column reads, side by side: `(W, size C)`."""
        left, right = self.reach.left, self.reach.columns - 1 - self.reach.left
        padded = jnp.pad(hidden, ((left, right), (0, 0)))
        return jnp.concatenate([padded[k : k + len(hidden)] for k in range(left + 1 + right)], 1)

    def make_state(self, width, dtype):
        """Return the state of decoding before the first pixel."""
        channels = self.join.O.shape[0]
        left, cells = jnp.zeros((1, 2 * channels), dtype), jnp.zeros((width, channels), dtype)
        return left, self.reach.make_buffer(width, channels, dtype), cells

    def step(self, h, i, j, state, context):
        """Return the next features `(1, 2 C)` of pixel `(i, j)`, and the next state."""
        left, buffer, cells = state
        gates = self.gates(jnp.concatenate([jnp.where(j == 0, 0, left), h], 1), context)
        above = jax.lax.dynamic_slice_in_dim(buffer, j, self.reach.columns, 1)[(i - 1) % 2]
        cell = jax.lax.dynamic_slice_in_dim(cells, j, 1)
        hidden, cell = update(gates + above.reshape(1, -1) @ self.U[...], cell)
        buffer = self.reach.put(buffer, hidden[None], i, j)
        cells = jax.lax.dynamic_update_slice_in_dim(cells, cell, j, 0)
        return self.join(h, hidden), (h, buffer, cells)
