"""PixelCNN: masked convolutions."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import Shape, check_image, check_shape, check_size
from afflow.core.conditioner import Conditioner
from afflow.nets.raster import Reach, find_square_reach

PIXEL = Reach(1, 1, 0)


class PixelCNN(Conditioner):
    r"""Masked convolutions over an image: a pixel sees the pixels above it and left of it.

    $$h_0 = W_A * x + c_0, \qquad
    h_{l+1} = h_l + V_l\, \mathrm{relu}\big(W_l * \mathrm{relu}(U_l\, \mathrm{relu}(h_l))\big),
    \qquad p = B\, \mathrm{relu}(A\, \mathrm{relu}(h_L)).$$

    The tokens are the pixels in raster order, channel by channel. The first convolution has a mask
    of type A, which excludes the present value. The others have masks of type B, which include it.
    Features belong to one channel each, in equal groups: a feature of green sees red, and a feature
    of blue sees both. A pixel does not see the whole image before it: pixels above it to the right
    are in a blind spot (`GatedPixelCNN` has none).

    A density takes one pass. A step of decoding computes one pixel of every layer, from buffers of
    the last rows. The output weights start at zero.

    van den Oord et al. 2016, arXiv:1601.06759.

    Args:
        shape: `(H, W)`, or `(H, W, C)` for several channels.
        num_params: parameters per value `P`.
        channels: features of a pixel; a block has half of them inside.
        num_blocks: number of residual blocks `L`.
        kernel_size: rows and columns of the first convolution, odd.
        block_kernel_size: rows and columns of the convolution in a block, odd.
        features: numbers that encode a value, 1 for a scalar. With more, an event is
            `(H W C, features)`.
        context_dim: length of the context vector, which every convolution adds; 0 for none.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or even sizes of kernels.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"channels": 8, "num_blocks": 1}
        >>> network = afflow.conditioners.PixelCNN((3, 4), 1, **sizes, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(12)).shape
        (12, 1)
    """

    def __init__(
        self,
        shape: Shape,
        num_params: int,
        *,
        channels: int = 64,
        num_blocks: int = 7,
        kernel_size: int = 7,
        block_kernel_size: int = 3,
        features: int = 1,
        context_dim: int = 0,
        rngs: nnx.Rngs,
    ):
        self.shape = check_image(shape)
        *_, colours = self.shape
        sizes = math.prod(self.shape), num_params, (channels,)
        self._set_sizes(*sizes, features=features, context_dim=context_dim)
        check_size("channels", channels, least=2 * colours)
        check_size("num_blocks", num_blocks, least=0)
        half = channels // 2
        groups = {width: np.arange(width) * colours // width for width in (channels, half)}
        inputs = np.arange(colours * features) // features
        outputs = np.arange(colours * num_params) // num_params

        def draw(before, after, reach=PIXEL, *, present=True):
            places = _Groups(tuple(before), tuple(after), present)
            return _Masked(places, reach, context_dim=context_dim, rngs=rngs)

        wide, narrow = groups[channels], groups[half]
        self.first = draw(inputs, wide, find_square_reach(kernel_size), present=False)
        square = find_square_reach(block_kernel_size)
        self.narrows = nnx.List([draw(wide, narrow) for _ in range(num_blocks)])
        self.inners = nnx.List([draw(narrow, narrow, square) for _ in range(num_blocks)])
        self.widens = nnx.List([draw(narrow, wide) for _ in range(num_blocks)])
        self.A, self.B = draw(wide, wide), draw(wide, outputs)
        self.B.kernel.set_value(jnp.zeros_like(self.B.kernel[...]))

    def __call__(self, x, context=None):
        def convolve(layer, number, z):
            return layer.reach.convolve(z, layer.weights())

        height, width, _ = self.shape
        params = self._run(x.reshape(height, width, -1), context, convolve)
        return params.reshape(len(x), self.num_params)

    def init_cache(self, context=None, dtype=float):
        dtype = jnp.result_type(self.first.kernel[...], dtype)
        layers = [self.first, *self.inners]
        sizes = [(layer.reach, layer.kernel.shape[2]) for layer in layers]
        return [reach.make_buffer(self.shape[1], size, dtype) for reach, size in sizes], context

    def step(self, x_prev, t, cache):
        (pixels, *buffers), context = cache
        _, width, colours = self.shape

        def locate(t):
            return t // (width * colours), t // colours % width, t % colours

        i, j, colour = locate(t - 1)
        x_prev = jnp.where(t == 0, 0, jnp.atleast_1d(x_prev))
        place = colour * self.features
        pixels = self.first.reach.put(pixels, x_prev[None, None], i, j, place)
        i, j, colour = locate(t)

        def convolve(layer, number, z):
            if number:
                buffers[number - 1] = layer.reach.put(buffers[number - 1], z, i, j)
            buffer = buffers[number - 1] if number else pixels
            return layer.reach.convolve_at(buffer, i, j, layer.weights())

        params = self._run(None, context, convolve).reshape(colours, self.num_params)
        return params[colour], ([pixels, *buffers], context)

    def _run(self, z, context, convolve):
        """Return the parameters `(H, W, C P)` of all pixels, or of one pixel with H = W = 1.

        `convolve(layer, number, z)` returns the convolution of a layer. The convolutions are
        numbered; number 0 reads the image `z`.
        """

        def apply(layer, z):
            return layer.add(multiply_rows(z, layer.weights()[0, 0]), context)

        h = self.first.add(convolve(self.first, 0, z), context)
        blocks = zip(self.narrows, self.inners, self.widens, strict=True)
        for number, (narrow, inner, widen) in enumerate(blocks, 1):
            a = jax.nn.relu(apply(narrow, jax.nn.relu(h)))
            a = inner.add(convolve(inner, number, a), context)
            h = h + apply(widen, jax.nn.relu(a))
        h = apply(self.A, jax.nn.relu(h))
        return apply(self.B, jax.nn.relu(h))


@dataclass(frozen=True)
class _Groups:
    """The channel of each input and output of a convolution, and whether it sees the present."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    present: bool


class _Masked(nnx.Module):
    """The weights of a masked convolution."""

    def __init__(self, groups, reach, *, context_dim, rngs):
        self.groups, self.reach = groups, reach
        shape = (reach.rows, reach.columns, len(groups.before), len(groups.after))
        seen = max(self.mask().sum((0, 1, 2)).mean(), 1)
        self.kernel = nnx.Param(jnp.sqrt(2 / seen) * jax.random.normal(draw_key(rngs), shape))
        draw = jax.random.normal(draw_key(rngs), (context_dim, shape[-1]))
        self.U = nnx.Param(draw / math.sqrt(max(context_dim, 1)))
        self.b = nnx.Param(jnp.zeros(shape[-1]))

    def mask(self) -> np.ndarray:
        """Return which weights are used: type B if the present is seen, else type A."""
        before, after = np.array(self.groups.before)[:, None], np.array(self.groups.after)[None]
        mask = np.ones((self.reach.rows, self.reach.columns, before.size, after.size), bool)
        mask[-1, self.reach.left] = before <= after if self.groups.present else before < after
        mask[-1, self.reach.left + 1 :] = False
        return mask

    def weights(self):
        """Return the kernel with its mask."""
        return jnp.where(self.mask(), self.kernel[...], 0)

    def add(self, h, context):
        """Return `h` plus the bias and the context."""
        h = h + self.b[...][None, None]
        return h if context is None else h + (context @ self.U[...])[None, None]


def check_plane(shape: Shape) -> tuple[int, int]:
    """Return `(H, W)`, or raise `ValueError`."""
    sizes = check_shape("shape", shape)
    if len(sizes) != 2:
        raise ValueError(f"Expected shape (H, W), got {sizes}: channels are features.")
    return sizes
