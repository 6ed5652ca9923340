"""Factories of further flows, named as in their papers."""

import math
from functools import partial
from typing import Unpack

import jax
import numpy as np
from flax import nnx

from afflow.actnorm import ActNorm
from afflow.autoregressive import MaskedAutoregressive
from afflow.bijector import num_params
from afflow.bnaf import BNAF
from afflow.compose import Chain, Repeat
from afflow.conditioners.convnet import ConvNet
from afflow.conditioners.made import MADE
from afflow.conditioners.mlp import MLP
from afflow.conditioners.periodic import Periodic
from afflow.coupling import Coupling
from afflow.distributions import Flow, Normal, Uniform
from afflow.domains import CircularShift
from afflow.elementwise import Elementwise
from afflow.flows import Outside, layered, maf, mixed, reverse
from afflow.image import Conv1x1, multiscale
from afflow.linear import Householder, Triangular
from afflow.permutations import Permutation, Reverse, Shuffle
from afflow.univariate.affine import Affine
from afflow.univariate.bernstein import BernsteinPolynomial
from afflow.univariate.mixture_cdf import GaussianCDF, MixtureCDF
from afflow.univariate.sigmoidal import Sigmoidal
from afflow.univariate.sos import SumOfSquares
from afflow.univariate.spline import CircularSpline, RationalQuadraticSpline
from afflow.univariate.umnn import UMNN


def naf(
    dim: int,
    *,
    sigmoids: tuple[int, ...] = (16,),
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a neural autoregressive flow: `maf` with `Sigmoidal(sigmoids)`.

    One number of sigmoids is the DSF of Huang et al. 2018, arXiv:1804.00779, several its
    DDSF. The other arguments are those of `maf`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.naf(2, sigmoids=(4,), num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.log_prob(jnp.zeros((3, 2))).shape
        (3,)
    """
    sigmoidal = partial(Sigmoidal, sigmoids)
    options = {"hidden": hidden, "context_dim": context_dim, "rngs": rngs}
    return maf(dim, num_layers=num_layers, univariate=sigmoidal, **options, **outside)


def umnn(
    dim: int,
    *,
    embedding: int = 16,
    integrand: tuple[int, ...] = (32, 32),
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return an unconstrained monotonic flow: `maf` with a `UMNN` in each layer.

    `integrand` holds the hidden widths of the integrated network, `embedding` the number
    of values it gets from the conditioner. The other arguments are those of `maf`.
    Wehenkel and Louppe 2019, arXiv:1908.05164.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.umnn(2, integrand=(8,), num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    monotonic = partial(UMNN, embedding, integrand, rngs=rngs)
    options = {"hidden": hidden, "context_dim": context_dim, "rngs": rngs}
    return maf(dim, num_layers=num_layers, univariate=monotonic, **options, **outside)


def sospf(
    dim: int,
    *,
    num_polynomials: int = 5,
    degree: int = 4,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a sum-of-squares polynomial flow: `maf` with `SumOfSquares`.

    The other arguments are those of `maf`. Jaini et al. 2019, arXiv:1905.02325.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.sospf(2, degree=2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    squares = partial(SumOfSquares, num_polynomials, degree)
    options = {"hidden": hidden, "context_dim": context_dim, "rngs": rngs}
    return maf(dim, num_layers=num_layers, univariate=squares, **options, **outside)


def bpf(
    dim: int,
    *,
    degree: int = 16,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a Bernstein polynomial flow: `maf` with `BernsteinPolynomial`.

    The other arguments are those of `maf`. Ramasinghe et al. 2021, arXiv:2102.03509.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.bpf(2, degree=4, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    bernstein = partial(BernsteinPolynomial, degree)
    options = {"hidden": hidden, "context_dim": context_dim, "rngs": rngs}
    return maf(dim, num_layers=num_layers, univariate=bernstein, **options, **outside)


def bnaf(
    dim: int,
    *,
    num_layers: int = 3,
    hidden: tuple[int, ...] = (16, 16),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a block neural autoregressive flow: `BNAF` layers in alternating order.

    `hidden` holds the units *per coordinate* of each hidden layer. The other arguments are
    those of `maf`; the start is close to the identity near the data. De Cao et al. 2019,
    arXiv:1904.04676.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.bnaf(2, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """

    def block(rngs):
        return BNAF(dim, hidden, context_dim=context_dim, rngs=rngs)

    return layered(dim, mixed(dim, reverse, block), num_layers, rngs, **outside)


def triangular_spline_flow(
    dim: int,
    *,
    num_layers: int = 8,
    num_bins: int = 8,
    bound: float = 5.0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a flow without networks: splines of each coordinate between triangular maps.

    Each layer is a spline of every coordinate, a triangular linear map and a random permutation.
    It has few parameters, and both directions are quick; a context is not taken. The other
    arguments are those of `nsf`. Ward, flowjax, 2022.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.triangular_spline_flow(3, num_layers=2, rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 5).shape
        (5, 3)
    """

    def layer(rngs):
        splines = Elementwise(RationalQuadraticSpline(num_bins, bound), dim)
        return Chain([splines, Triangular(dim), Shuffle(dim, rngs=rngs)])

    return layered(dim, layer, num_layers, rngs, **outside)


def circular_nsf(
    dim: int,
    *,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    num_bins: int = 8,
    context_dim: int = 0,
    rngs: nnx.Rngs,
) -> Flow:
    r"""Return a spline flow of angles on $[-\pi, \pi)^D$, with the arguments of `nsf`.

    Autoregressive layers of `CircularSpline` that see angles by their cosines and sines,
    and learned phases between them, on a uniform base. Densities are per radian.
    Rezende et al. 2020, arXiv:2002.02428.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.circular_nsf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)  # - 2 log(2 pi)
        -3.6758
    """

    def layer(rngs):
        spline = CircularSpline(num_bins)
        made = MADE(2 * dim, *num_params(spline), hidden, context_dim=context_dim, rngs=rngs)
        angles = MaskedAutoregressive(Periodic(made), spline)
        return Chain([Reverse(dim), CircularShift(dim), angles])

    circle = Uniform(dim, -math.pi, math.pi)
    return layered(dim, layer, num_layers, rngs, base=circle)


def gaussianization_flow(
    dim: int,
    *,
    num_layers: int = 6,
    num_components: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a Gaussianization flow: mixture CDFs of each coordinate, and rotations.

    It starts close to random rotations, and wants a learning rate of 1e-2 to 1e-1. The serial
    direction is a root search of each coordinate. A context sets the mixtures through a
    network with `hidden` layers; without one there is no network. The other arguments are
    those of `maf`. Meng et al. 2020, arXiv:2003.01941.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.gaussianization_flow(2, num_layers=2, rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """

    def layer(rngs):
        curve, widths = MixtureCDF(num_components, GaussianCDF()), hidden if context_dim else ()
        sizes = 0, dim, *num_params(curve), widths
        network = MLP(*sizes, context_dim=context_dim, rngs=rngs)
        rotation = Householder(dim, dim, rngs=rngs)
        rotation.v = nnx.Param(jax.random.normal(rngs.params(), rotation.v.shape))
        return Chain([Coupling([False] * dim, network, curve), rotation])

    return layered(dim, layer, num_layers, rngs, **outside)


def glow(
    event_shape: tuple[int, int, int],
    *,
    num_levels: int = 2,
    num_steps: int = 4,
    width: int = 64,
    context_dim: int | tuple[int, int, int] = 0,
    rngs: nnx.Rngs,
) -> Flow:
    """Return a multi-scale flow of images: at every scale steps of ActNorm, 1x1 and coupling.

    Kingma and Dhariwal 2018, arXiv:1807.03039. Set its `ActNorm` layers by
    `initialize_actnorm(flow, images)` before fitting.

    Args:
        event_shape: `(H, W, C)`, with `H` and `W` divisible by `2 ** num_levels`.
        num_levels: scales.
        num_steps: steps at every scale.
        width: hidden channels of the networks.
        context_dim: length of the context vector, which every network sees, or the shape
            `(H, W, C')` of a context image, which they see where they look; 0 for none.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for an image that cannot be halved so often.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.glow((4, 4, 1), num_levels=1, num_steps=1, width=4, rngs=nnx.Rngs(0))
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

    return Flow(Normal(event_shape), multiscale(steps, event_shape, num_levels, rngs=rngs))
