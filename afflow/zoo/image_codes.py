"""Factories: models of images with discrete codes."""

from flax import nnx

from afflow._tools.shapes import Shape, check_image, check_size
from afflow.conditionals.bernoulli import Bernoulli
from afflow.core.conditional import Conditional
from afflow.models.discrete_vae import DiscreteVAE
from afflow.nets.resampling import Downsampler, Upsampler


def discrete_vae(
    event_shape: Shape,
    *,
    num_codes: int = 128,
    conditional: Conditional = Bernoulli(),
    channels: tuple[int, ...] = (32, 64),
    num_blocks: int = 1,
    straight_through: bool = False,
    rngs: nnx.Rngs,
) -> DiscreteVAE:
    """Return a discrete variational autoencoder with strided convolutions.

    An image becomes a grid of `H / 2^n` times `W / 2^n` codes, with `n` entries in `channels`.

    Ramesh et al. 2021, arXiv:2102.12092, section 2.1.

    Args:
        event_shape: `(H, W)` or `(H, W, C)`; `2^n` divides `H` and `W`.
        num_codes: the number of symbols `K`.
        conditional: the distribution of a value.
        channels: the widths of the encoder after each halving. The decoder has them in reverse.
        num_blocks: residual blocks on the grid, in each of the two networks.
        straight_through: let the decoder see symbols in training, see `DiscreteVAE`.
        rngs: its `params` stream draws the initial weights.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> model = afflow.zoo.discrete_vae((8, 8), num_codes=5, channels=(4, 6), rngs=nnx.Rngs(0))
        >>> model.encode(jnp.ones((8, 8))).shape
        (2, 2)
    """
    check_size("num_codes", num_codes, least=2)
    height, width, size = check_image(event_shape)
    options = {"num_blocks": num_blocks, "rngs": rngs}
    inputs = height, width, size * conditional.features
    encoder = Downsampler(inputs, num_codes, channels, **options)
    factor = 2 ** len(channels)
    grid = height // factor, width // factor, num_codes
    decoder = Upsampler(grid, size * conditional.num_params, channels[::-1], **options)
    return DiscreteVAE(
        encoder, decoder, conditional, event_shape, straight_through=straight_through
    )
