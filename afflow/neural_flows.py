"""Factories: autoregressive flows named after their univariate."""

import jax
from flax import nnx

from afflow.distributions import Flow
from afflow.flows import maf
from afflow.univariate.bernstein import BernsteinPolynomial
from afflow.univariate.sigmoidal import Sigmoidal
from afflow.univariate.sos import SumOfSquares
from afflow.univariate.umnn import UMNN


def naf(
    dim: int,
    *,
    sigmoids: tuple[int, ...] = (16,),
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    data: jax.Array | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return a neural autoregressive flow: `maf` with `Sigmoidal(sigmoids)`.

    One number of sigmoids is the DSF of Huang et al. 2018, arXiv:1804.00779, several its
    DDSF. The other arguments are those of `maf`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.naf(2, sigmoids=(4,), num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    return maf(
        dim,
        num_layers=num_layers,
        hidden=hidden,
        context_dim=context_dim,
        univariate=lambda: Sigmoidal(sigmoids),
        data=data,
        rngs=rngs,
    )


def umnn(
    dim: int,
    *,
    embedding: int = 16,
    integrand: tuple[int, ...] = (32, 32),
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    data: jax.Array | None = None,
    rngs: nnx.Rngs,
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
    return maf(
        dim,
        num_layers=num_layers,
        hidden=hidden,
        context_dim=context_dim,
        univariate=lambda: UMNN(embedding, integrand, rngs=rngs),
        data=data,
        rngs=rngs,
    )


def sospf(
    dim: int,
    *,
    num_polynomials: int = 5,
    degree: int = 4,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    data: jax.Array | None = None,
    rngs: nnx.Rngs,
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
    return maf(
        dim,
        num_layers=num_layers,
        hidden=hidden,
        context_dim=context_dim,
        univariate=lambda: SumOfSquares(num_polynomials, degree),
        data=data,
        rngs=rngs,
    )


def bpf(
    dim: int,
    *,
    degree: int = 16,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    data: jax.Array | None = None,
    rngs: nnx.Rngs,
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
    return maf(
        dim,
        num_layers=num_layers,
        hidden=hidden,
        context_dim=context_dim,
        univariate=lambda: BernsteinPolynomial(degree),
        data=data,
        rngs=rngs,
    )
