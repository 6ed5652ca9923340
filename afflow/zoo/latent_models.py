"""Factories: models with a code, of numbers or of symbols."""

import math
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.shapes import Shape, check_image, check_shape, check_size, check_widths
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Chain, Inverse
from afflow.conditionals.bernoulli import Bernoulli
from afflow.conditioners.graphical import Graphical
from afflow.core.bijector import Bijector
from afflow.core.conditional import Conditional
from afflow.distributions.standard import Normal
from afflow.models.discrete_vae import DiscreteVAE
from afflow.models.flow import Flow
from afflow.models.vae import VAE
from afflow.nets.mlp import MLP
from afflow.nets.resampling import Downsampler, Upsampler
from afflow.univariates.affine import Affine
from afflow.zoo.autoregressive_flows import iaf


def vae(
    event_shape: int | Shape,
    num_latents: int = 32,
    *,
    conditional: Conditional = Bernoulli(),
    num_layers: int = 2,
    hidden: tuple[int, ...] = (300, 300),
    flow_hidden: tuple[int, ...] = (64,),
    context_dim: int = 128,
    rngs: nnx.Rngs,
) -> VAE:
    """Return a variational autoencoder of perceptrons, with an IAF as its posterior.

    The posterior starts with a Gaussian of independent numbers, given the event. The layers of an
    inverse autoregressive flow follow, which see the same context.

    Kingma et al. 2016, arXiv:1606.04934.

    Args:
        event_shape: the shape of an event.
        num_latents: the length of the code `L`.
        conditional: the distribution of a value.
        num_layers: layers of the flow; 0 leaves the Gaussian of independent numbers.
        hidden: widths of the hidden layers of the encoder. The decoder has them in reverse.
        flow_hidden: widths of the hidden layers of each layer of the flow.
        context_dim: the length of the context that the encoder gives to the posterior.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> model = afflow.zoo.vae((4, 4), 2, hidden=(8,), context_dim=4, rngs=nnx.Rngs(0))
        >>> model.sample(jax.random.key(0), 3).shape
        (3, 4, 4)
    """
    event_shape = check_shape("event_shape", event_shape)
    check_size("num_latents", num_latents)
    check_size("num_layers", num_layers, least=0)
    check_size("context_dim", context_dim)
    size = math.prod(event_shape)
    check_widths(hidden)
    encoder: list[Any] = [jnp.ravel]
    for widths in pairwise((size * conditional.features, *hidden, context_dim)):
        encoder += [nnx.Linear(*widths, rngs=rngs), jax.nn.gelu]
    options = {"activation": jax.nn.gelu, "rngs": rngs}
    decoder = MLP(num_latents, size, conditional.num_params, hidden[::-1], **options)
    layers: list[Bijector] = [_make_diagonal(num_latents, context_dim, rngs)]
    if num_layers:
        sizes = {"num_layers": num_layers, "hidden": flow_hidden, "context_dim": context_dim}
        layers.append(iaf(num_latents, **sizes, rngs=rngs).bijector)
    posterior = Flow(Normal(num_latents), Chain(layers))
    return VAE(nnx.Sequential(*encoder), decoder, conditional, posterior, event_shape)


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


def _make_diagonal(num_latents: int, context_dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return a shift and a scale of each coordinate, both linear in the context."""
    no_edges = np.zeros((num_latents, num_latents), bool)
    network = Graphical(no_edges.tolist(), 2, (), context_dim=context_dim, rngs=rngs)
    return Inverse(MaskedAutoregressive(network, Affine()))
