"""Factories: flows of couplings, with one pass per layer in both directions."""

from collections.abc import Callable
from functools import partial
from typing import Unpack

import jax
import numpy as np
from flax import nnx

from afflow._tools.shapes import check_size
from afflow.bijectors.actnorm import ActNorm
from afflow.bijectors.compose import Chain, Repeat
from afflow.bijectors.coupling import Coupling
from afflow.bijectors.elementwise import Elementwise
from afflow.bijectors.image import Conv1x1, multiscale
from afflow.bijectors.permutations import Permutation
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.core.univariate import count_params
from afflow.distributions.standard import Normal
from afflow.models.flow import Flow
from afflow.nets.convnet import ConvNet
from afflow.nets.mlp import MLP
from afflow.univariates.additive import Additive
from afflow.univariates.affine import Affine
from afflow.univariates.spline import RationalQuadraticSpline
from afflow.zoo.stacking import (
    Make,
    Mix,
    NetworkOptions,
    Outside,
    add_mix,
    build_univariate,
    choose_mix,
    reverse,
    stack_layers,
)


def coupling_flow(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    mix: Mix | None = None,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a flow of couplings: one pass per layer in both directions.

    In each layer, the first half of the coordinates sets the parameters of the second half. The
    map of `mix` before the layer changes which coordinates are first.

    Dinh et al. 2017, arXiv:1605.08803.

    Args:
        dim: number of coordinates `D`.
        num_layers: coupling layers; more than two are compiled as one (`Repeat`).
        hidden: widths of the hidden layers of each network.
        context_dim: length of the context vector; 0 for an unconditional flow.
        univariate: makes the scalar map of the coordinates.
        activation: the nonlinearity of each network.
        mix: makes the bijector before each layer from `(dim, rngs)`, as for `maf`.
        rngs: its `params` stream draws the initial weights.
        **outside: `data`, `columns` and `base`, see `Outside`: the units of the flow.

    Raises:
        ValueError: for sizes out of range, or `data` of another shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.coupling_flow(3, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 5).shape
        (5, 3)
    """
    make = _make_coupling(dim, hidden, context_dim, univariate, activation)
    return stack_layers(
        dim, add_mix(dim, mix or choose_mix(num_layers), make), num_layers, rngs, **outside
    )


def realnvp(
    dim: int,
    *,
    num_layers: int = 8,
    rngs: nnx.Rngs,
    **options: Unpack[NetworkOptions],
) -> Flow:
    """Return a flow of affine couplings: Real NVP, with the arguments of `coupling_flow`.

    Dinh et al. 2017, arXiv:1605.08803.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.realnvp(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    return coupling_flow(dim, num_layers=num_layers, rngs=rngs, **options)


def nsf_coupling(
    dim: int,
    *,
    num_layers: int = 8,
    num_bins: int = 8,
    bound: float = 5.0,
    rngs: nnx.Rngs,
    **options: Unpack[NetworkOptions],
) -> Flow:
    """Return a flow of spline couplings: NSF-C, with the arguments of `coupling_flow` and `nsf`.

    Durkan et al. 2019, arXiv:1906.04032.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.nsf_coupling(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    spline = partial(RationalQuadraticSpline, num_bins, bound)
    return coupling_flow(dim, num_layers=num_layers, univariate=spline, rngs=rngs, **options)


def nice(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    mix: Mix = reverse,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a flow of additive couplings after one trained scale per coordinate: NICE.

    The arguments are described at `coupling_flow`.

    Dinh et al. 2015, arXiv:1410.8516.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.zoo.nice(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    make = add_mix(dim, mix, _make_coupling(dim, hidden, context_dim, Additive, activation))
    scale = Elementwise(Affine(), dim)
    return stack_layers(dim, make, num_layers, rngs, first=[scale], **outside)


def _make_coupling(dim, hidden, context_dim, univariate, activation) -> Make:
    """Return a function that builds a coupling layer: the first half sets the second half."""
    check_size("dim", dim)
    half = dim // 2

    def make(rngs):
        options = {"context_dim": context_dim, "activation": activation}
        scalar = build_univariate(univariate)
        network = MLP(half, dim - half, count_params(scalar), hidden, **options, rngs=rngs)
        return Coupling([t < half for t in range(dim)], network, scalar)

    return make


def glow(
    event_shape: tuple[int, int, int],
    *,
    num_levels: int = 2,
    num_steps: int = 4,
    width: int = 64,
    context_dim: int | tuple[int, int, int] = 0,
    base: Distribution | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return a multi-scale flow of images: Glow.

    Every scale has steps of ActNorm, 1x1 convolution and coupling, in the direction from data to
    noise. Call `initialize_actnorm(flow, images)` before fitting.

    Kingma and Dhariwal 2018, arXiv:1807.03039.

    Args:
        event_shape: `(H, W, C)`, with `H` and `W` divisible by `2 ** num_levels`.
        num_levels: number of scales.
        num_steps: steps at every scale.
        width: hidden channels of the networks.
        context_dim: length of the context vector, which every network sees; 0 for none. Or the
            shape `(H, W, C')` of a context image: a network sees the context pixels at the place
            of each pixel.
        base: the distribution of the noise, in place of the standard normal.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for an image that cannot be halved `num_levels` times, or a base of another
            event shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.zoo.glow((4, 4, 1), num_levels=1, num_steps=1, width=4, rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 2).shape
        (2, 4, 4, 1)
    """

    def step(shape, rngs):
        half = (*shape[:2], shape[2] // 2)
        mask = np.broadcast_to(np.arange(shape[2]) < half[2], shape)
        swap = Permutation([*range(half[2], shape[2]), *range(half[2])])
        network = ConvNet(half, 2, width, context_dim=context_dim, rngs=rngs)
        coupling = Coupling(mask, network, Affine())
        return Chain([coupling, Conv1x1(shape, swap), ActNorm(shape)])

    def steps(shape, rngs):
        return Repeat(lambda rngs: step(shape, rngs), num_steps, rngs=rngs)

    base = Normal(event_shape) if base is None else base
    return Flow(base, multiscale(steps, event_shape, num_levels, rngs=rngs))
