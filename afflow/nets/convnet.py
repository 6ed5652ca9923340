"""A small convolutional network, for couplings of images."""

from collections.abc import Iterable
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow._tools.convolution import convolve
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape


class ConvNet(Outlined, nnx.Module):
    r"""A network of 3x3, 1x1 and 3x3 convolutions for the coupling of images.

    It maps one half of the channels, flattened as `Coupling` passes them, to the parameters of
    the other half. The last convolution starts at zero.

    Kingma and Dhariwal 2018, arXiv:1807.03039, appendix B.

    Args:
        shape: `(H, W, C)` of the half that passes, equal to the shape of the transformed half.
        num_params: parameters per transformed element `P`.
        width: channels of the two hidden layers.
        context_dim: length of the context vector, which every pixel sees; 0 for none. Or the
            shape `(f H, f W, C')` of a context image: a pixel sees the `f x f` context pixels
            at its place.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: if the size of a context image is not a multiple of `(H, W)`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> net = afflow.nets.ConvNet((4, 4, 3), 2, 8, rngs=nnx.Rngs(0))
        >>> net(jnp.ones(48)).shape
        (48, 2)
    """

    def __init__(
        self,
        shape: Shape,
        num_params: int,
        width: int,
        *,
        context_dim: int | Shape = 0,
        rngs: nnx.Rngs,
    ):
        self.shape = tuple(shape)
        sizes = tuple(context_dim) if isinstance(context_dim, Iterable) else (context_dim,)
        self.context_shape = sizes if any(sizes) else None
        seen = _make_channels(sizes, self.shape)
        self.num_params = num_params
        sizes = pairwise([shape[2] + seen, width, width, shape[2] * num_params])
        init = jax.nn.initializers.he_normal()
        kernels = [
            init(draw_key(rngs), (side, side, *channels))
            for side, channels in zip((3, 1, 3), sizes, strict=True)
        ]
        kernels[-1] = jnp.zeros_like(kernels[-1])
        self.kernels = nnx.List([nnx.Param(kernel) for kernel in kernels])
        self.biases = nnx.List([nnx.Param(jnp.zeros(kernel.shape[-1])) for kernel in kernels])

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return parameters `(H W C, P)` of a flattened image `(H W C,)`."""
        h = x.reshape(self.shape)
        if context is not None:
            h = jnp.concatenate([h, _spread(context.astype(x.dtype), self.shape)], -1)
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            h = jax.nn.relu(h) if layer else h
            h = _convolve(h, kernel[...].astype(x.dtype)) + bias[...].astype(x.dtype)[None, None]
        return h.reshape(-1, self.num_params)


def _make_channels(context_shape: Shape, shape: Shape) -> int:
    """Return how many numbers of a context each pixel sees."""
    if len(context_shape) == 1:
        return context_shape[0]
    (height, width, channels), factor = context_shape, context_shape[0] // shape[0]
    if (height, width) != (factor * shape[0], factor * shape[1]) or factor < 1:
        raise ValueError(
            f"Expected a context image of a multiple of the {shape[0]} x {shape[1]} pixels, got "
            f"shape {context_shape}."
        )
    return factor**2 * channels


def _spread(context: jax.Array, shape: Shape) -> jax.Array:
    """Return `(H, W, C')`: for each pixel, the numbers of the context that the pixel sees."""
    height, width, _ = shape
    if context.ndim == 1:
        return jnp.broadcast_to(context, (height, width, len(context)))
    factor, channels = context.shape[0] // height, context.shape[-1]
    blocks = context.reshape(height, factor, width, factor, channels)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(height, width, factor**2 * channels)


def _convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve one `(H, W, C)` image with a `(side, side, C, C')` kernel; keep height and width."""
    margin = len(kernel) // 2
    padded = jnp.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    return convolve(padded, kernel, (1, 1))
