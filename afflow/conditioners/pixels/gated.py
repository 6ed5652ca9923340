"""Gated PixelCNN: a vertical and a horizontal stack of convolutions, without a blind spot."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.products import multiply_rows
from afflow._tools.shapes import Shape, check_size
from afflow.conditioners.pixels.pixelcnn import check_plane
from afflow.core.conditioner import Conditioner
from afflow.nets.raster import Reach, find_square_reach
from afflow.nets.weights import draw_normal


class GatedPixelCNN(Conditioner):
    r"""Two stacks of gated convolutions: a pixel sees every pixel before it.

    $$a_l = W_l * v_l + c_l, \qquad v_{l+1} = g(a_l), \qquad
    h_{l+1} = h_l + O_l\, g(w_l * h_l + U_l a_l + d_l), \qquad
    g(a, b) = \tanh a \odot \sigma(b),$$

    $$p = B\, \mathrm{relu}(A\, \mathrm{relu}(h_L)).$$

    The vertical stack $v$ sees all rows above: it starts from the image moved down by a row. The
    horizontal stack $h$ sees the row left of the pixel: it starts from the image moved right by a
    column, and reads the vertical stack. The first layer has no residual connection. The tokens are
    the pixels in raster order.

    A density takes one pass. In decoding, the first step of a row computes the row of the vertical
    stack; a step computes one pixel of the horizontal stack. Together they cost about one pass. The
    output weights start at zero.

    van den Oord et al. 2016, arXiv:1606.05328.

    Args:
        shape: `(H, W)`.
        num_params: parameters per pixel `P`.
        channels: features of a pixel in each stack.
        num_layers: number of layers `L`.
        kernel_size: rows and columns of the convolutions of the first layer, odd.
        layer_kernel_size: rows and columns of the other convolutions, odd.
        features: numbers in a pixel, 1 for a scalar. With more, an event is `(H W, features)`.
        context_dim: length of the context vector, which enters every gate; 0 for none.
        dropout: the probability to drop a feature of the horizontal stack, during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, even sizes of kernels, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"channels": 8, "num_layers": 2}
        >>> network = afflow.conditioners.GatedPixelCNN((3, 4), 1, **sizes, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(12)).shape
        (12, 1)
    """

    def __init__(
        self,
        shape: Shape,
        num_params: int,
        *,
        channels: int = 64,
        num_layers: int = 8,
        kernel_size: int = 7,
        layer_kernel_size: int = 3,
        features: int = 1,
        context_dim: int = 0,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.shape = check_plane(shape)
        sizes = math.prod(self.shape), num_params, (channels,)
        self._set_sizes(*sizes, features=features, context_dim=context_dim, dropout=dropout)
        check_size("num_layers", num_layers)
        first = find_square_reach(kernel_size)
        others = find_square_reach(layer_kernel_size)
        options = {"context_dim": context_dim, "rngs": rngs}
        layers = [_Layer(features, channels, first, is_first=True, **options)]
        layers += [_Layer(channels, channels, others, **options) for _ in range(num_layers - 1)]
        self.layers = nnx.List(layers)
        self.A = draw_normal(rngs, 2 / channels, channels, channels)
        self.a = nnx.Param(jnp.zeros(channels))
        self.B = nnx.Param(jnp.zeros((channels, num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    def __call__(self, x, context=None):
        return self._pass(x, context, None)

    def _pass(self, x, context, key):
        image = x.reshape(*self.shape, self.features)
        v = jnp.pad(image, ((1, 0), (0, 0), (0, 0)))[:-1]  # from the row above
        h = jnp.pad(image, ((0, 0), (1, 0), (0, 0)))[:, :-1]  # from the column to the left
        for i, layer in enumerate(self.layers):
            a = layer.add_vertical(layer.vertical.convolve(v, layer.W[...]), context)
            v = gate(a)
            row = layer.horizontal.convolve(h, layer.w[...])
            h = layer.go_on(h, row, a, context, lambda g, i=i: self._drop(key, i, g))
        return self._read(h)

    def init_cache(self, context=None, dtype=float):
        width, dtype = self.shape[1], jnp.result_type(self.A[...], dtype)
        sizes = [layer.W.shape[2] for layer in self.layers]
        pairs = list(zip(self.layers, sizes, strict=True))
        above = [layer.vertical.make_buffer(width, size, dtype) for layer, size in pairs]
        left = [layer.horizontal.make_buffer(width, size, dtype) for layer, size in pairs]
        rows = [jnp.zeros((1, width, layer.w.shape[3]), dtype) for layer in self.layers]
        return above, rows, left, jnp.zeros((1, width, self.features), dtype), context

    def step(self, x_prev, t, cache):
        above, rows, left, image_row, context = cache
        width = self.shape[1]
        i, j = t // width, t % width
        x_prev = jnp.where(t == 0, 0, jnp.atleast_1d(x_prev)).astype(image_row.dtype)[None, None]
        image_row = jax.lax.dynamic_update_slice(image_row, x_prev, (0, (t - 1) % width, 0))

        def start_row(above, rows):
            v, new_above, new_rows = image_row, [], []
            for layer, buffer in zip(self.layers, above, strict=True):
                buffer = layer.vertical.put_row(buffer, v, i)
                row = layer.vertical.convolve_row(buffer, i, layer.W[...])
                a = layer.add_vertical(row, context)
                new_above.append(buffer)
                new_rows.append(a)
                v = gate(a)
            return new_above, new_rows

        above, rows = jax.lax.cond(j == 0, start_row, lambda *same: same, above, rows)
        h, new_left = jnp.where(j == 0, 0, x_prev), []
        for layer, buffer, row in zip(self.layers, left, rows, strict=True):
            buffer = layer.horizontal.put(buffer, h, i, j)
            here = layer.horizontal.convolve_at(buffer, i, j, layer.w[...])
            a = jax.lax.dynamic_slice_in_dim(row, j, 1, 1)
            h = layer.go_on(h, here, a, context, lambda g: g)
            new_left.append(buffer)
        return self._read(h)[0], (above, rows, new_left, image_row, context)

    def _read(self, h):
        """Return the parameters `(H W, P)` of pixels."""
        h = jax.nn.relu(h.reshape(-1, h.shape[-1]))
        h = jax.nn.relu(multiply_rows(h, self.A[...]) + self.a[...][None])
        return multiply_rows(h, self.B[...]) + self.b[...][None]


class _Layer(nnx.Module):
    """The weights of both stacks in one layer."""

    def __init__(self, inputs, channels, reach, *, context_dim, rngs, is_first=False):
        self.is_first = is_first
        self.vertical = reach
        self.horizontal = Reach(1, reach.left + 1, reach.left)
        two = 2 * channels
        area = reach.rows * reach.columns
        self.W = draw_normal(rngs, 1 / (inputs * area), reach.rows, reach.columns, inputs, two)
        scale = 1 / (inputs * self.horizontal.columns)
        self.w = draw_normal(rngs, scale, 1, self.horizontal.columns, inputs, two)
        self.U = draw_normal(rngs, 1 / two, two, two)
        self.O = draw_normal(rngs, 1 / channels, channels, channels)
        self.o = nnx.Param(jnp.zeros(channels))
        self.c, self.d = (nnx.Param(jnp.zeros(two)) for _ in range(2))
        self.C, self.D = (
            draw_normal(rngs, 1 / max(context_dim, 1), context_dim, two) for _ in range(2)
        )

    def add_vertical(self, a, context):
        """Return the convolution of the vertical stack plus the bias and the context."""
        return _add(a, self.c, self.C, context)

    def go_on(self, h, row, a, context, drop):
        """Return the next features of the horizontal stack."""
        g = gate(_add(row + multiply_rows(a, self.U[...]), self.d, self.D, context))
        out = multiply_rows(drop(g), self.O[...]) + self.o[...][None, None]
        return out if self.is_first else h + out


def gate(a: jax.Array) -> jax.Array:
    """Return the hyperbolic tangent of the first half times the sigmoid of the second half."""
    first, second = jnp.split(a, 2, axis=-1)
    return jnp.tanh(first) * jax.nn.sigmoid(second)


def _add(a, bias, weights, context):
    a = a + bias[...][None, None]
    return a if context is None else a + (context @ weights[...])[None, None]
