"""Convolutional networks from an image to a coarse grid, and from a coarse grid to an image."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow._tools.convolution import convolve
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_shape, check_size, check_widths


class Downsampler(Outlined, nnx.Module):
    r"""A network from an image `(H, W, C)` to features on a grid `(H / 2^n, W / 2^n, P)`.

    There are `n` convolutions with kernels of 4x4 and stride 2, one for each entry of `channels`.
    Residual blocks $h + K_2 * \mathrm{relu}(K_1 * \mathrm{relu}(h))$ on the coarse grid follow. The
    kernels $K_1$ are 3x3, the kernels $K_2$ are 1x1. The last convolution is 1x1.

    van den Oord et al. 2017, arXiv:1711.00937, section 4.1.

    Args:
        shape: `(H, W, C)`; `2^n` divides `H` and `W`.
        num_outputs: features of a place of the grid `P`.
        channels: the widths after each halving.
        num_blocks: residual blocks.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or an image that cannot be halved `n` times.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> network = afflow.nets.Downsampler((8, 8, 1), 5, (4, 6), rngs=nnx.Rngs(0))
        >>> network(jnp.ones((8, 8, 1))).shape
        (2, 2, 5)
    """

    def __init__(
        self,
        shape: Shape,
        num_outputs: int,
        channels: tuple[int, ...] = (32, 64),
        *,
        num_blocks: int = 1,
        rngs: nnx.Rngs,
    ):
        _check(shape, num_outputs, channels, num_blocks)
        factor = 2 ** len(channels)
        if shape[0] % factor or shape[1] % factor:
            raise ValueError(
                f"Expected an image whose height and width are multiples of {factor}, got shape "
                f"{shape}: choose fewer channels, or pad the images."
            )
        width = channels[-1]
        halvings = [_Convolution(4, *pair, rngs=rngs) for pair in pairwise((shape[2], *channels))]
        self.halvings = nnx.List(halvings)
        self.blocks = nnx.List([_ResidualPair(width, rngs=rngs) for _ in range(num_blocks)])
        self.last = _Convolution(1, width, num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the features `(H / 2^n, W / 2^n, P)` of an image `(H, W, C)`."""
        h = x
        for number, halving in enumerate(self.halvings):
            h = halving(jax.nn.relu(h) if number else h, stride=2)
        for block in self.blocks:
            h = block(h)
        return self.last(jax.nn.relu(h))


class Upsampler(Outlined, nnx.Module):
    r"""A network from features on a grid `(h, w, K)` to an image `(2^n h, 2^n w, P)`.

    A 1x1 convolution and residual blocks, as in `Downsampler`, come first. Then `n` convolutions
    with kernels of 3x3 give the features of each 2x2 square of the next grid (Shi et al. 2016,
    arXiv:1609.05158). The last convolution starts at zero.

    Args:
        shape: `(h, w, K)`.
        num_outputs: features of a pixel `P`.
        channels: the widths before each doubling.
        num_blocks: residual blocks.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> network = afflow.nets.Upsampler((2, 2, 5), 3, (6, 4), rngs=nnx.Rngs(0))
        >>> network(jnp.ones((2, 2, 5))).shape
        (8, 8, 3)
    """

    def __init__(
        self,
        shape: Shape,
        num_outputs: int,
        channels: tuple[int, ...] = (64, 32),
        *,
        num_blocks: int = 1,
        rngs: nnx.Rngs,
    ):
        _check(shape, num_outputs, channels, num_blocks)
        self.first = _Convolution(1, shape[2], channels[0], rngs=rngs)
        self.blocks = nnx.List([_ResidualPair(channels[0], rngs=rngs) for _ in range(num_blocks)])
        widths = pairwise((*channels, num_outputs))
        self.doublings = nnx.List([_Convolution(3, a, 4 * b, rngs=rngs) for a, b in widths])
        kernel = self.doublings[-1].kernel
        kernel[...] = jnp.zeros_like(kernel[...])

    def __call__(self, z: jax.Array) -> jax.Array:
        """Return the features `(2^n h, 2^n w, P)` of a grid `(h, w, K)`."""
        h = self.first(z)
        for block in self.blocks:
            h = block(h)
        for doubling in self.doublings:
            h = _spread(doubling(jax.nn.relu(h)))
        return h


class _ResidualPair(nnx.Module):
    """A residual block of a 3x3 and a 1x1 convolution."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.wide = _Convolution(3, width, width, rngs=rngs)
        self.narrow = _Convolution(1, width, width, rngs=rngs)

    def __call__(self, h: jax.Array) -> jax.Array:
        """Return the features `(h, w, width)` after the block."""
        return h + self.narrow(jax.nn.relu(self.wide(jax.nn.relu(h))))


class _Convolution(nnx.Module):
    """A convolution with a bias, and with zeros around the image."""

    def __init__(self, side: int, num_inputs: int, num_outputs: int, *, rngs: nnx.Rngs):
        init = jax.nn.initializers.he_normal()
        self.kernel = nnx.Param(init(draw_key(rngs), (side, side, num_inputs, num_outputs)))
        self.bias = nnx.Param(jnp.zeros(num_outputs))

    def __call__(self, h: jax.Array, stride: int = 1) -> jax.Array:
        """Return the convolution of an image `(H, W, num_inputs)`."""
        rest = len(self.kernel[...]) - stride
        edge = rest // 2, rest - rest // 2
        padded = jnp.pad(h, (edge, edge, (0, 0)))
        out = convolve(padded, self.kernel[...], (stride, stride))
        return out + self.bias[...].astype(h.dtype)[None, None]


def _spread(h: jax.Array) -> jax.Array:
    """Return the grid `(2 h, 2 w, C)` whose 2x2 squares are the rows of features `(h, w, 4 C)`."""
    height, width, size = h.shape
    squares = h.reshape(height, width, 2, 2, size // 4).swapaxes(1, 2)
    return squares.reshape(2 * height, 2 * width, size // 4)


def _check(shape: Shape, num_outputs: int, channels: tuple[int, ...], num_blocks: int) -> None:
    """Raise `ValueError` for sizes out of range."""
    if len(check_shape("shape", shape)) != 3:
        raise ValueError(f"Expected a shape (H, W, C), got {shape}.")
    check_size("num_outputs", num_outputs)
    check_widths(channels, least=1)
    check_size("num_blocks", num_blocks, least=0)
