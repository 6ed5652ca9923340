"""PixelCNN++: two streams of shifted convolutions at several resolutions."""

import itertools
import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.products import multiply_rows
from afflow._tools.shapes import Shape, check_size
from afflow.conditioners.pixels.pixelcnn import check_plane
from afflow.core.conditioner import Conditioner
from afflow.nets.raster import Reach
from afflow.nets.regions import ImagePixel, ImageRow, WholeImage
from afflow.nets.weights import draw_normal

DOWN = Reach(2, 3, 1)  # reads two rows
RIGHT = Reach(2, 2, 1)  # reads two rows up to the column of the pixel
ABOVE = Reach(1, 3, 1)  # reads one row of the image moved down by a row
LEFT = Reach(2, 1, 0)  # reads one column of the image moved right by a column


class PixelCNNPP(Conditioner):
    r"""PixelCNN++: shifted convolutions at several resolutions, joined by skip connections.

    $$f(z, a) = z + b_1 \odot \sigma(b_2), \qquad
    (b_1, b_2) = W_2 * e\big(W_1 * e(z) + A\, e(a)\big) + D\, \mathrm{context}, \qquad
    e(z) = \mathrm{elu}([z, -z]).$$

    There are two streams of residual blocks $f$. The vertical stream sees the rows above a pixel.
    The horizontal stream also sees the row to the left, and its blocks read the vertical stream as
    $a$. A stream has `num_blocks[0]` blocks at the size of the image, `num_blocks[1]` blocks at
    half the size, and so on. The stream then returns to the size of the image by as many blocks. A
    block on the way back also reads its partner on the way down as part of $a$ (a skip connection).
    A pixel sees every pixel before it, as far as the convolutions reach. The tokens are the pixels
    in raster order.

    A density takes one pass. A step of decoding computes one pixel of the horizontal stream, and
    the first step of a row computes one row of the vertical stream. A smaller resolution takes part
    in every second row and column only. The output weights start at zero.

    Salimans et al. 2017, arXiv:1701.05517; without its weight normalisation.

    Args:
        shape: `(H, W)`.
        num_params: parameters per pixel `P`.
        channels: features of a pixel in each stream.
        num_blocks: number of blocks at each resolution, on each way.
        features: numbers in a pixel, 1 for a scalar. With more, an event is `(H W, features)`.
        context_dim: length of the context vector, which every gate sees; 0 for none.
        dropout: the probability to drop a feature inside a block, during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"channels": 8, "num_blocks": (1, 1)}
        >>> network = afflow.conditioners.PixelCNNPP((3, 4), 1, **sizes, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(12)).shape
        (12, 1)
    """

    def __init__(
        self,
        shape: Shape,
        num_params: int,
        *,
        channels: int = 64,
        num_blocks: tuple[int, ...] = (2, 2, 2),
        features: int = 1,
        context_dim: int = 0,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.shape = check_plane(shape)
        sizes = math.prod(self.shape), num_params, (channels,)
        self._set_sizes(*sizes, features=features, context_dim=context_dim, dropout=dropout)
        for number in num_blocks:
            check_size("num_blocks", number)
        self.channels = channels
        inputs = features + 1
        self.start_down = _ShiftedConvolution(DOWN, inputs, channels, rngs=rngs)
        self.start_above = _ShiftedConvolution(ABOVE, inputs, channels, rngs=rngs)
        self.start_left = _ShiftedConvolution(LEFT, inputs, channels, rngs=rngs)
        options = {"context_dim": context_dim, "rngs": rngs}
        numbers = itertools.count()
        self.down = _Resolution(DOWN, channels, num_blocks, numbers, reads=0, **options)
        self.right = _Resolution(RIGHT, channels, num_blocks, numbers, reads=1, **options)
        self.B = nnx.Param(jnp.zeros((channels, num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    def __call__(self, x, context=None):
        return self._pass(x, context, None)

    def _pass(self, x, context, key):
        region, state = WholeImage(self.shape), self._make_state(x.dtype)
        image = _mark(x.reshape(*self.shape, self.features))
        above = jnp.pad(image, ((1, 0), (0, 0), (0, 0)))[:-1]
        left = jnp.pad(image, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        extras = context, partial(self._drop, key)
        state = self._go_down(region, above, state, extras)
        return self._go_right(region, left, state, extras)[0]

    def init_cache(self, context=None, dtype=float):
        dtype = jnp.result_type(self.B[...], dtype)
        row = jnp.zeros((1, self.shape[1], self.features + 1), dtype)
        return row, self._make_state(dtype), context

    def step(self, x_prev, t, cache):
        row, state, context = cache
        width, extras = self.shape[1], (context, partial(self._drop, None))
        i, j = t // width, t % width
        x_prev = _mark(jnp.atleast_1d(x_prev).astype(row.dtype)[None, None])
        x_prev = jnp.where(t == 0, 0, x_prev)
        row = jax.lax.dynamic_update_slice_in_dim(row, x_prev, (t - 1) % width, 1)
        region = ImageRow(width, i)
        state = jax.lax.cond(
            j == 0,
            lambda state: self._go_down(region, row, state, extras),
            lambda state: state,
            state,
        )
        left = jnp.where(j == 0, 0, x_prev)
        params, state = self._go_right(ImagePixel(i, j), left, state, extras)
        return params[0], (row, state, context)

    def _make_state(self, dtype):
        width = self.shape[1]
        starts = [self.start_down.make_buffer(width, dtype)]
        starts += [self.start_above.make_buffer(width, dtype)]
        starts += [self.start_left.make_buffer(width, dtype)]
        above = jnp.zeros((1, width, self.channels), dtype)
        streams = [level.make_state(width, dtype) for level in (self.down, self.right)]
        return starts, above, streams

    def _go_down(self, region, image_above, state, extras):
        """Return the state after the vertical stream, from the image moved down by a row."""
        (down, above, left), _, (stream, right) = state
        z, down = self.start_down(region, image_above, down)
        row, above = self.start_above(region, image_above, above)
        stream = self.down(region, z, None, stream, extras)
        return [down, above, left], row, [stream, right]

    def _go_right(self, region, image_left, state, extras):
        """Return the parameters of pixels `(N, P)`, and the state after the horizontal stream."""
        (down, above, left), row, (below, stream) = state
        z, left = self.start_left(region, image_left, left)
        stream = self.right(region, z + region.take(row), below, stream, extras)
        z = jax.nn.elu(region.take(stream.outputs[-1])).reshape(-1, self.channels)
        params = multiply_rows(z, self.B[...]) + self.b[...][None]
        return params, ([down, above, left], row, [below, stream])


class _State(NamedTuple):
    """The state of a level: what its later regions need from the regions before."""

    buffers: list  # of the convolutions of each block
    shrunk: Any  # the buffer of the convolution to the next level
    outputs: list  # rows of the blocks that others read, the last block at the end
    inner: Any  # the state of the next level


class _Resolution(nnx.Module):
    """The blocks of a stream at one resolution, and the next level at half of it."""

    def __init__(self, reach, channels, num_blocks, numbers, *, reads, **options):
        number, *rest = num_blocks
        self.channels, self.is_read = channels, not reads

        def make_blocks(reads):
            beside = reads * channels
            blocks = range(number)
            return [_GatedBlock(reach, channels, beside, next(numbers), **options) for _ in blocks]

        self.blocks = nnx.List(make_blocks(reads) + make_blocks(reads + 1))
        self.inner: Any = (
            _Resolution(reach, channels, rest, numbers, reads=reads, **options) if rest else None
        )
        if rest:
            rngs = options["rngs"]
            self.shrink = _ShiftedConvolution(reach, channels, channels, rngs=rngs)
            self.grow = draw_normal(rngs, 1 / channels, 2, 2, channels, channels)

    def make_state(self, width, dtype):
        buffers = [block.make_buffers(width, dtype) for block in self.blocks]
        row = jnp.zeros((1, width, self.channels), dtype)
        outputs = [row for _ in self.blocks] if self.is_read else [row]
        if self.inner is None:
            return _State(buffers, None, outputs, None)
        inner = self.inner.make_state((width + 1) // 2, dtype)
        return _State(buffers, self.shrink.make_buffer(width, dtype), outputs, inner)

    def __call__(self, region, z, beside, state, extras):
        """Return the state after a region with features `z`.

        Args:
            region: the pixels to compute.
            z: their features.
            beside: the state of the stream that the blocks read, if any.
            state: the state after the regions before.
            extras: the context, and a function that drops features.
        """
        features, buffers, shrunk, inner = [], [], state.shrunk, state.inner
        half = len(self.blocks) // 2
        for n, block in enumerate(self.blocks):
            if n == half and self.inner is not None:
                shrunk = region.put(self.shrink.reach, shrunk, z)
                inner = region.at_half(partial(self._go_in, region, shrunk, beside, extras), inner)
                z = region.grow(inner.outputs[-1], self.grow[...])
            read = [] if beside is None else [region.take(beside.outputs[n])]
            read += [features[2 * half - 1 - n]] if n >= half else []
            z, pair = block(region, z, read, state.buffers[n], extras)
            features.append(z)
            buffers.append(pair)
        kept = features if self.is_read else features[-1:]
        outputs = [region.keep(row, z) for row, z in zip(state.outputs, kept, strict=True)]
        return _State(buffers, shrunk, outputs, inner)

    def _go_in(self, region, shrunk, beside, extras, half, state):
        """Return the state of the next level after the region `half`."""
        z = self.shrink.read(region, shrunk, stride=2)
        return self.inner(half, z, None if beside is None else beside.inner, state, extras)


class _GatedBlock(nnx.Module):
    """A gated residual block. Its number gives it a dropout mask that no other block has."""

    def __init__(self, reach, channels, beside, number, *, context_dim, rngs):
        self.number = number
        two = 2 * channels
        self.W_1 = _ShiftedConvolution(reach, two, channels, rngs=rngs)
        self.W_2 = _ShiftedConvolution(reach, two, two, gain=0.1, rngs=rngs)
        self.A = draw_normal(rngs, 1 / max(beside, 1), 2 * beside, channels)
        self.D = draw_normal(rngs, 1 / max(context_dim, 1), context_dim, two)

    def make_buffers(self, width, dtype):
        return [layer.make_buffer(width, dtype) for layer in (self.W_1, self.W_2)]

    def __call__(self, region, z, read, buffers, extras):
        """Return the features of a region, and the buffers after it."""
        context, drop = extras
        h, first = self.W_1(region, concat_elu(z), buffers[0])
        if read:
            h = h + multiply_rows(concat_elu(jnp.concatenate(read, -1)), self.A[...])
        h = drop(self.number, concat_elu(h))
        h, second = self.W_2(region, h, buffers[1])
        if context is not None:
            h = h + (context @ self.D[...])[None, None]
        b_1, b_2 = jnp.split(h, 2, -1)
        return z + b_1 * jax.nn.sigmoid(b_2), [first, second]


class _ShiftedConvolution(nnx.Module):
    """The weights of a causal convolution."""

    def __init__(self, reach, inputs, outputs, *, gain=1.0, rngs):
        self.reach = reach
        variance = gain**2 / (reach.rows * reach.columns * inputs)
        shape = (reach.rows, reach.columns, inputs, outputs)
        self.kernel = draw_normal(rngs, variance, *shape)
        self.bias = nnx.Param(jnp.zeros(outputs))

    def make_buffer(self, width, dtype):
        return self.reach.make_buffer(width, self.kernel.shape[2], dtype)

    def __call__(self, region, z, buffer):
        """Return the convolution of a region with features `z`, and the buffer after it."""
        buffer = region.put(self.reach, buffer, z)
        return self.read(region, buffer), buffer

    def read(self, region, buffer, stride=1):
        """Return the convolution of the features in a buffer."""
        h = region.convolve(self.reach, buffer, self.kernel[...], stride)
        return h + self.bias[...][None, None]


def concat_elu(z: jax.Array) -> jax.Array:
    """Return the exponential linear units of `z` and `-z`, one after the other."""
    positive = z > 0
    below = jnp.exp(jnp.where(positive, -z, z)) - 1  # one exponential serves both
    return jnp.concatenate([jnp.where(positive, z, below), jnp.where(positive, below, -z)], -1)


def _mark(image: jax.Array) -> jax.Array:
    """Return the image with a channel of ones. Outside of the image this channel is zero."""
    return jnp.concatenate([image, jnp.ones_like(image[..., :1])], -1)
