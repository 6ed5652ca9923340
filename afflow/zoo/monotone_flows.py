"""Factories: autoregressive flows of learned monotone maps, and two flows without a `MADE`."""

from functools import partial
from typing import Unpack

from flax import nnx

from afflow.bijectors.block_neural import BNAF
from afflow.bijectors.compose import Chain
from afflow.bijectors.elementwise import Elementwise
from afflow.bijectors.linear import Triangular
from afflow.bijectors.permutations import Shuffle
from afflow.bijectors.solvers import Incremental, Solver
from afflow.models.flow import Flow
from afflow.univariates.bernstein import BernsteinPolynomial
from afflow.univariates.sigmoidal import Sigmoidal
from afflow.univariates.sos import SumOfSquares
from afflow.univariates.spline import RationalQuadraticSpline
from afflow.univariates.umnn import UMNN
from afflow.zoo.autoregressive_flows import maf
from afflow.zoo.stacking import MaskedOptions, Mix, Outside, add_mix, reverse, stack_layers


def naf(
    dim: int,
    *,
    sigmoids: tuple[int, ...] = (16,),
    num_layers: int = 5,
    rngs: nnx.Rngs,
    **options: Unpack[MaskedOptions],
) -> Flow:
    """Return a neural autoregressive flow: `maf` with `Sigmoidal(sigmoids)`.

    With one number in `sigmoids` this is the DSF of Huang et al. 2018, arXiv:1804.00779, with
    several the DDSF. The other arguments are described at `maf`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.naf(2, sigmoids=(4,), num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.log_prob(jnp.zeros((3, 2))).shape
        (3,)
    """
    sigmoidal = partial(Sigmoidal, sigmoids)
    return maf(dim, num_layers=num_layers, univariate=sigmoidal, rngs=rngs, **options)


def umnn(
    dim: int,
    *,
    embedding: int = 16,
    integrand: tuple[int, ...] = (32, 32),
    num_layers: int = 5,
    rngs: nnx.Rngs,
    **options: Unpack[MaskedOptions],
) -> Flow:
    """Return an unconstrained monotonic flow: `maf` with a `UMNN` in each layer.

    `integrand` holds the hidden widths of the integrated network. `embedding` is the number of
    values that the network gets from the conditioner. The other arguments are described at
    `maf`.

    Wehenkel and Louppe 2019, arXiv:1908.05164.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.zoo.umnn(2, integrand=(8,), num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    monotonic = partial(UMNN, embedding, integrand, rngs=rngs)
    return maf(dim, num_layers=num_layers, univariate=monotonic, rngs=rngs, **options)


def sospf(
    dim: int,
    *,
    num_polynomials: int = 5,
    degree: int = 4,
    num_layers: int = 5,
    rngs: nnx.Rngs,
    **options: Unpack[MaskedOptions],
) -> Flow:
    """Return a sum-of-squares polynomial flow: `maf` with `SumOfSquares`.

    The other arguments are described at `maf`. Jaini et al. 2019, arXiv:1905.02325.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.zoo.sospf(2, degree=2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    squares = partial(SumOfSquares, num_polynomials, degree)
    return maf(dim, num_layers=num_layers, univariate=squares, rngs=rngs, **options)


def bpf(
    dim: int,
    *,
    degree: int = 16,
    num_layers: int = 5,
    rngs: nnx.Rngs,
    **options: Unpack[MaskedOptions],
) -> Flow:
    """Return a Bernstein polynomial flow: `maf` with `BernsteinPolynomial`.

    The other arguments are described at `maf`. Ramasinghe et al. 2021, arXiv:2102.03509.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.zoo.bpf(2, degree=4, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    bernstein = partial(BernsteinPolynomial, degree)
    return maf(dim, num_layers=num_layers, univariate=bernstein, rngs=rngs, **options)


def bnaf(
    dim: int,
    *,
    num_layers: int = 3,
    hidden: tuple[int, ...] = (16, 16),
    context_dim: int = 0,
    leak: float = 0.0,
    solver: Solver = Incremental(),
    mix: Mix = reverse,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a block neural autoregressive flow: `BNAF` layers in alternating order.

    `hidden` holds the units *per coordinate* of each hidden layer. Their activation is `tanh`, or
    `leak * u + (1 - leak) * tanh(u)`, whose tails do not saturate. The other arguments are
    described at `maf`. The flow starts close to the identity near the data.

    De Cao et al. 2019, arXiv:1904.04676.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.bnaf(2, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """

    def block(rngs):
        options = {"context_dim": context_dim, "leak": leak, "solver": solver}
        return BNAF(dim, hidden, **options, rngs=rngs)

    return stack_layers(dim, add_mix(dim, mix, block), num_layers, rngs, **outside)


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
    The flow has few parameters, and both directions are fast. It takes no context. The other
    arguments are described at `nsf`. Ward, flowjax, 2022.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.zoo.triangular_spline_flow(3, num_layers=2, rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 5).shape
        (5, 3)
    """

    def layer(rngs):
        splines = Elementwise(RationalQuadraticSpline(num_bins, bound), dim)
        return Chain([splines, Triangular(dim), Shuffle(dim, rngs=rngs)])

    return stack_layers(dim, layer, num_layers, rngs, **outside)
