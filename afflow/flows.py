"""Factories: the published flows, composed from the library's parts."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from afflow.arrays import double
from afflow.autoregressive import MaskedAutoregressive
from afflow.bijector import Bijector, Inverse, check_size, num_params
from afflow.compose import Chain, Repeat
from afflow.conditioners.made import MADE
from afflow.conditioners.mlp import MLP
from afflow.coupling import Coupling
from afflow.distributions import Distribution, Flow, Normal
from afflow.elementwise import Elementwise, Standardize
from afflow.embedding import Embedded, ZScores
from afflow.inversion import Incremental, Solver
from afflow.permutations import Reverse
from afflow.prefix import keeps_order
from afflow.univariate.additive import Additive
from afflow.univariate.affine import Affine
from afflow.univariate.per_dimension import PerDimension
from afflow.univariate.spline import RationalQuadraticSpline

Data = jax.Array | tuple[jax.Array, jax.Array]
Make = Callable[[nnx.Rngs], Bijector]
Mix = Callable[[int, nnx.Rngs], Bijector]
_CHAIN_UP_TO, _UNROLL_UP_TO, _UNROLL_BELOW_WIDTH = 2, 8, 384


def reverse(dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return `Reverse(dim)`: how layers are mixed by default."""
    return Reverse(dim)


def maf(
    dim: int,
    *,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix = reverse,
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return a masked autoregressive flow: density in one parallel pass a layer.

    Autoregressive layers in alternating order on a standard normal; before training it
    is the identity, after standardisation. Papamakarios et al. 2017, arXiv:1705.07057.

    Args:
        dim: number of coordinates `D`.
        num_layers: autoregressive layers; more than two are compiled as one (`Repeat`).
        hidden: widths of the hidden layers of each `MADE`.
        context_dim: length of the context vector; 0 for an unconditional flow.
        univariate: makes the scalar map of the coordinates.
        activation: the nonlinearity of each `MADE`.
        residual: whether each `MADE` is residual.
        dtype: operands of the matrix products in each `MADE`: `jnp.bfloat16` computes them
            in mixed precision; log-determinants stay in float32.
        solver: runs the serial direction, here sampling.
        mix: makes what stands before each layer from `(dim, rngs)`: by default `Reverse`,
            `lambda dim, rngs: LU(dim, Reverse(dim))` for a trained linear map.
        data: `(N, D)`, or a pair of it and contexts `(N, context_dim)`; if given, the flow
            standardises by its mean and deviation, and so the contexts (`ZScores`).
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or `data` of another shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.maf(2, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """
    make = _layer(dim, hidden, context_dim, univariate, activation, residual, dtype, solver)
    return layered(dim, mixed(dim, mix, make), num_layers, data, rngs)


def iaf(
    dim: int,
    *,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix = reverse,
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return an inverse autoregressive flow: sampling in one parallel pass a layer.

    The layers of `maf`, each read backwards, with the same arguments; `solver` runs the
    density of given data. Kingma et al. 2016, arXiv:1606.04934.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.iaf(2, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> x, log_prob = flow.sample_and_log_prob(jax.random.key(0), 3)
        >>> log_prob.shape
        (3,)
    """
    make = _layer(dim, hidden, context_dim, univariate, activation, residual, dtype, solver)
    read_backwards = mixed(dim, mix, lambda rngs: Inverse(make(rngs)))
    return layered(dim, read_backwards, num_layers, data, rngs)


def made(
    dim: int,
    *,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return one autoregressive layer in the natural order, with the arguments of `maf`.

    With `Affine`, each coordinate is normal given the earlier ones.
    Germain et al. 2015, arXiv:1502.03509.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.made(2, rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    make = _layer(dim, hidden, context_dim, univariate, activation, residual, dtype, solver)
    return layered(dim, make, 1, data, rngs)


def nsf(
    dim: int,
    *,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    num_bins: int = 8,
    bound: float = 5.0,
    context_dim: int = 0,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix = reverse,
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return an autoregressive neural spline flow: `maf` with rational-quadratic splines.

    The arguments are those of `maf`, and `num_bins` of each spline, and the `bound` where
    the splines end and identity tails begin: in units of the noise and, with `data`, of its
    standard deviations. Durkan et al. 2019, arXiv:1906.04032.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.nsf(2, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """
    spline = partial(RationalQuadraticSpline, num_bins, bound)
    make = _layer(dim, hidden, context_dim, spline, activation, residual, dtype, solver)
    return layered(dim, mixed(dim, mix, make), num_layers, data, rngs)


def coupling_flow(
    dim: int,
    *,
    num_layers: int = 6,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    mix: Mix = reverse,
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return a flow of couplings: one pass a layer in both directions.

    The first half of the coordinates sets the parameters of the others, and then the order
    is reversed. Dinh et al. 2017, arXiv:1605.08803.

    Args:
        dim: number of coordinates `D`.
        num_layers: coupling layers; more than two are compiled as one (`Repeat`).
        hidden: widths of the hidden layers of each network.
        context_dim: length of the context vector; 0 for an unconditional flow.
        univariate: makes the scalar map of the coordinates.
        activation: the nonlinearity of each network.
        mix: makes what stands before each layer, as for `maf`.
        data: `(N, D)`, or with contexts, as for `maf`: the flow standardises by it.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or `data` of another shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.coupling_flow(3, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 5).shape
        (5, 3)
    """
    half = dim // 2

    def make(rngs):
        options = {"context_dim": context_dim, "activation": activation}
        scalar = made_by(univariate)
        network = MLP(half, dim - half, *num_params(scalar), hidden, **options, rngs=rngs)
        return Coupling([t < half for t in range(dim)], network, scalar)

    return layered(dim, mixed(dim, mix, make), num_layers, data, rngs)


def realnvp(
    dim: int,
    *,
    num_layers: int = 6,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return affine couplings: Real NVP, with the arguments of `coupling_flow`.

    Dinh et al. 2017, arXiv:1605.08803.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.realnvp(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    options = {"hidden": hidden, "context_dim": context_dim, "data": data, "rngs": rngs}
    return coupling_flow(dim, num_layers=num_layers, **options)


def nsf_coupling(
    dim: int,
    *,
    num_layers: int = 6,
    hidden: tuple[int, ...] = (64, 64),
    num_bins: int = 8,
    bound: float = 5.0,
    context_dim: int = 0,
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return spline couplings: NSF-C, with the arguments of `coupling_flow` and `nsf`.

    Durkan et al. 2019, arXiv:1906.04032.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.nsf_coupling(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    spline = partial(RationalQuadraticSpline, num_bins, bound)
    options = {"hidden": hidden, "context_dim": context_dim, "data": data, "rngs": rngs}
    return coupling_flow(dim, num_layers=num_layers, univariate=spline, **options)


def nice(
    dim: int,
    *,
    num_layers: int = 6,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    data: Data | None = None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return additive couplings behind one free scale: NICE, arguments of `coupling_flow`.

    Dinh et al. 2015, arXiv:1410.8516.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.nice(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    options = {"hidden": hidden, "context_dim": context_dim, "data": data, "rngs": rngs}
    flow = coupling_flow(dim, num_layers=num_layers, univariate=Additive, **options)
    return Flow(flow.base, Chain([Elementwise(Affine(), dim), flow.bijector]))


def _layer(dim, hidden, context_dim, univariate, activation, residual, dtype, solver) -> Make:
    """Return what makes one autoregressive layer over a MADE."""

    def make(rngs):
        scalar = made_by(univariate)
        conditioner = MADE(
            dim,
            *num_params(scalar),
            hidden,
            context_dim=context_dim,
            activation=activation,
            residual=residual,
            dtype=dtype,
            rngs=rngs,
        )
        return MaskedAutoregressive(conditioner, scalar, solver)

    return make


def made_by(univariate: Callable[[], Bijector]) -> Bijector:
    """Return a univariate of its own for a layer."""
    if isinstance(univariate, Bijector):
        name = type(univariate).__name__
        raise ValueError(f"Expected univariate=lambda: {name}(...), got one {name}.")
    return univariate()


def mixed(dim: int, mix: Mix, make: Make) -> Make:
    """Return what makes a layer behind a mixing one."""
    return lambda rngs: Chain([mix(dim, rngs), make(rngs)])


def layered(
    dim: int,
    make: Make,
    num_layers: int,
    data: Data | None,
    rngs: nnx.Rngs,
    base: Distribution | None = None,
) -> Flow:
    """Stack layers, and standardisation nearest to the data, by default on a standard normal."""
    check_size("dim", dim)
    check_size("num_layers", num_layers)
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"Expected rngs, nnx.Rngs(0) say, got {rngs!r}.")
    if num_layers > _CHAIN_UP_TO:
        stack = Repeat(make, num_layers, rngs=rngs)
        stack.unroll = num_layers <= _UNROLL_UP_TO and not _is_wide(stack)
        layers: list[Bijector] = [stack]
    else:
        layers = [make(rngs) for _ in range(num_layers)]
    if num_layers > 1:
        _check_kinds(layers[0])
    pair = data if isinstance(data, tuple) else (data, None)
    if len(pair) != 2:
        raise ValueError(
            f"Expected data (N, {dim}), or a pair of it and contexts, got {len(pair)}."
        )
    x, context = (rows if rows is None else double("data", rows) for rows in pair)
    if x is not None:
        _check_rows("data", x, dim)
        layers.append(Standardize.from_data(x))
    bijector = Chain(layers)
    if context is not None:
        shape = bijector.context_shape or (0,)
        _check_rows("contexts", context, *shape)
        bijector = Embedded(bijector, ZScores(context), shape)
    return Flow(base or Normal(dim), bijector)


def _is_wide(stack: Repeat) -> bool:
    """Return whether layers are so wide that the memory which a scan saves is worth its stacks."""
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(stack.layers)]
    return any(len(shape) == 2 and min(shape) >= _UNROLL_BELOW_WIDTH for shape in shapes)


def _check_rows(name: str, rows: np.ndarray, size: int) -> None:
    if jnp.ndim(rows) != 2 or jnp.shape(rows)[1] != size:
        raise ValueError(f"Expected {name}.shape (N, {size}), got {jnp.shape(rows)}.")


def _check_kinds(layer: Bijector) -> None:
    """Raise `ValueError` where univariates for certain columns would meet others."""
    placed = any(isinstance(part, PerDimension) for _, part in nnx.iter_graph(layer))
    if placed and not keeps_order(layer):
        raise ValueError(
            "Expected layers that keep the order of the coordinates with PerDimension: take one "
            "layer, or autoregressive ones with mix=lambda dim, rngs: Permutation(range(dim))."
        )
