"""A small convolutional network, for couplings of images."""

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from afflow.bijector import Shape
from afflow.outline import Outlined


class ConvNet(Outlined, nnx.Module):
    r"""Convolutions of 3x3, 1x1 and 3x3 pixels from channels to the parameters of others.

    It takes the passing half of the channels, flattened as `Coupling` hands them over, and
    returns parameters of the other half. The last convolution starts at zero.
    Kingma and Dhariwal 2018, arXiv:1807.03039, appendix B.

    Args:
        shape: `(H, W, C)` of what passes, and of what is transformed.
        num_params: parameters per transformed element `P`.
        width: channels of the two hidden layers.
        context_dim: length of the context vector, seen at every pixel; 0 for none.
        rngs: its `params` stream draws the initial weights.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> net = afflow.ConvNet((4, 4, 3), 2, 8, rngs=nnx.Rngs(0))
        >>> net(jnp.ones(48)).shape
        (48, 2)
    """

    def __init__(
        self, shape: Shape, num_params: int, width: int, *, context_dim: int = 0, rngs: nnx.Rngs
    ):
        self.shape = tuple(shape)
        self.context_shape = (context_dim,) if context_dim else None
        self.num_params = num_params
        sizes = pairwise([shape[2] + context_dim, width, width, shape[2] * num_params])
        init = jax.nn.initializers.he_normal()
        kernels = [
            init(rngs.params(), (side, side, *channels))
            for side, channels in zip((3, 1, 3), sizes, strict=True)
        ]
        kernels[-1] = jnp.zeros_like(kernels[-1])
        self.kernels = nnx.List([nnx.Param(kernel) for kernel in kernels])
        self.biases = nnx.List([nnx.Param(jnp.zeros(kernel.shape[-1])) for kernel in kernels])

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return parameters `(H W C, P)` of a flattened image `(H W C,)`."""
        h = x.reshape(self.shape)
        if context is not None:
            spread = jnp.broadcast_to(context.astype(x.dtype), (*self.shape[:2], len(context)))
            h = jnp.concatenate([h, spread], -1)
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            h = jax.nn.relu(h) if layer else h
            h = _convolve(h, kernel[...].astype(x.dtype)) + bias[...].astype(x.dtype)[None, None]
        return h.reshape(-1, self.num_params)


def _convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve one `(H, W, C)` image with `(side, side, C, C')`, keeping its size."""
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        image[None], kernel, (1, 1), "SAME", dimension_numbers=axes
    )[0]
