"""Factories: the published flows, composed from the library's parts."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from afflow.arguments import check_callable, check_instance
from afflow.arrays import double
from afflow.autoregressive import MaskedAutoregressive
from afflow.bijector import Bijector, Inverse, check_size, num_params
from afflow.columns import Columns, Kinds, Layout, layout_of
from afflow.compose import Chain, Repeat
from afflow.conditioners.made import MADE
from afflow.conditioners.mlp import MLP
from afflow.coupling import Coupling
from afflow.distributions import Distribution, Flow, Normal
from afflow.elementwise import Elementwise
from afflow.embedding import Embedded, ZScores
from afflow.inversion import Incremental, Solver
from afflow.linear import LU
from afflow.permutations import Reverse, Shuffle
from afflow.prefix import keeps_order
from afflow.units import units_of
from afflow.univariate.additive import Additive
from afflow.univariate.affine import Affine
from afflow.univariate.per_dimension import PerDimension
from afflow.univariate.spline import RationalQuadraticSpline

Data = Any | tuple[Any, Any]
Make = Callable[[nnx.Rngs], Bijector]
Mix = Callable[[int, nnx.Rngs], Bijector]


class Outside(TypedDict, total=False):
    """What every factory puts around its layers.

    Args:
        data: rows `(N, D)`, or a pair of them and contexts `(N, context_dim)`. The flow
            standardises by them: by mean and deviation, heavy-tailed columns by quantiles and
            with `HeavyTails`, contexts by `ZScores`.
        columns: what each column of the data is: `Real()`, `Above(0.0)`, `Between(0.0, 1.0)`,
            `Whole()` or `Categories(...)`, as a sequence, or by position or name. The flow
            then has densities and samples in the units of a table (`Columns`), whose
            columns are mapped to the line and standardised there.
        base: the distribution of the noise, in place of the standard normal.
    """

    data: Data | None
    columns: Kinds | None
    base: Distribution | None


_CHAIN_UP_TO = 2


def lu(dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return a trained linear map around a random permutation: how layers are mixed by default."""
    return LU(dim, Shuffle(dim, rngs=rngs))


def inverse_lu(dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return the inverse of such a map: of products where samples are made in one pass."""
    return Inverse(lu(dim, rngs))


def reverse(dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return `Reverse(dim)`: how the papers of autoregressive flows and couplings mix layers."""
    return Reverse(dim)


def maf(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix | None = None,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a masked autoregressive flow: density in one parallel pass a layer.

    Autoregressive layers on a standard normal, with a trained linear map before each, which
    starts as a random permutation. Before training the flow only permutes and standardises.
    Papamakarios et al. 2017, arXiv:1705.07057.

    The defaults were chosen on tables and toy densities of 100 to 100,000 rows. Units are `tanh`,
    because a bounded conditioner does not extrapolate to a row far out.

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
        mix: makes the bijector before each layer from `(dim, rngs)`. By default it is a trained
            linear map, `LU(dim, Shuffle(dim, rngs=rngs))`, and a single layer has none;
            `lambda dim, rngs: Reverse(dim)` reverses the order instead, as the paper does.
        rngs: its `params` stream draws the initial weights.
        **outside: `data`, `columns` and `base`, see `Outside`: the units of the flow.

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
    return layered(dim, mixed(dim, mix or usual_mix(num_layers), make), num_layers, rngs, **outside)


def iaf(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix | None = None,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
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
    mix = mix or usual_mix(num_layers, inverse_lu)
    read_backwards = mixed(dim, mix, lambda rngs: Inverse(make(rngs)))
    return layered(dim, read_backwards, num_layers, rngs, **outside)


def made(
    dim: int,
    *,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
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
    return layered(dim, make, 1, rngs, **outside)


def nsf(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    num_bins: int = 8,
    bound: float = 5.0,
    context_dim: int = 0,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    residual: bool = False,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix | None = None,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
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
    return layered(dim, mixed(dim, mix or usual_mix(num_layers), make), num_layers, rngs, **outside)


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
    make = _coupling(dim, hidden, context_dim, univariate, activation)
    return layered(dim, mixed(dim, mix or usual_mix(num_layers), make), num_layers, rngs, **outside)


def realnvp(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
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
    options = {"hidden": hidden, "context_dim": context_dim, "rngs": rngs}
    return coupling_flow(dim, num_layers=num_layers, **options, **outside)


def nsf_coupling(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    num_bins: int = 8,
    bound: float = 5.0,
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
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
    options = {"hidden": hidden, "context_dim": context_dim, "rngs": rngs}
    return coupling_flow(dim, num_layers=num_layers, univariate=spline, **options, **outside)


def nice(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
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
    make = mixed(dim, reverse, _coupling(dim, hidden, context_dim, Additive, jax.nn.relu))
    scale = Elementwise(Affine(), dim)
    return layered(dim, make, num_layers, rngs, first=[scale], **outside)


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


def _coupling(dim, hidden, context_dim, univariate, activation) -> Make:
    """Return a function that builds one coupling layer, whose first half sets the second."""
    half = dim // 2

    def make(rngs):
        options = {"context_dim": context_dim, "activation": activation}
        scalar = made_by(univariate)
        network = MLP(half, dim - half, *num_params(scalar), hidden, **options, rngs=rngs)
        return Coupling([t < half for t in range(dim)], network, scalar)

    return make


def made_by(univariate: Callable[[], Bijector]) -> Bijector:
    """Return a univariate of its own for a layer."""
    if isinstance(univariate, Bijector):
        name = type(univariate).__name__
        raise ValueError(f"Expected univariate=lambda: {name}(...), got one {name}.")
    check_callable("univariate", univariate, "afflow.Affine")
    return univariate()


def mixed(dim: int, mix: Mix | None, make: Make) -> Make:
    """Return a function that builds a layer with a mixing one before it, if there is one."""
    if mix is not None:
        check_callable("mix", mix, "lambda dim, rngs: Reverse(dim)", 2)
    return make if mix is None else lambda rngs: Chain([mix(dim, rngs), make(rngs)])


def usual_mix(num_layers: int, several: Mix = lu) -> Mix | None:
    """Return how a number of layers is mixed by default: one layer is not."""
    check_size("num_layers", num_layers)
    return several if num_layers > 1 else None


def layered(
    dim: int,
    make: Make,
    num_layers: int,
    rngs: nnx.Rngs,
    *,
    first: Sequence[Bijector] = (),
    data: Data | None = None,
    columns: Kinds | None = None,
    base: Distribution | None = None,
    **unknown: Any,
) -> Flow:
    """Stack layers between a base, some `first` bijectors next to it, and the units of the data."""
    if unknown:
        raise TypeError(
            f"Expected the factory's own arguments, or data, columns and base, got {list(unknown)}."
        )
    check_size("dim", dim)
    check_size("num_layers", num_layers)
    if base is not None:
        check_instance("base", base, Distribution)
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"Expected rngs, nnx.Rngs(0) say, got {rngs!r}.")
    layers = _stacked(make, num_layers, rngs)
    if num_layers > 1:
        _check_kinds(layers[0])
    x, context = _pair_of(dim, data)
    layout = None if columns is None else layout_of(dim, columns, x)
    bijector = Chain([*first, *layers, *_units(dim, x, layout)])
    if context is not None:
        shape = bijector.context_shape or (0,)
        _check_rows("contexts", context, *shape)
        bijector = Embedded(bijector, ZScores(context), shape)
    return Flow(base or Normal(dim), bijector if layout is None else Columns(bijector, layout))


def _stacked(make: Make, num_layers: int, rngs: nnx.Rngs) -> list[Bijector]:
    if num_layers <= _CHAIN_UP_TO:
        return [make(rngs) for _ in range(num_layers)]
    return [Repeat(make, num_layers, rngs=rngs)]


def _pair_of(dim: int, data: Any) -> tuple[Any, np.ndarray | None]:
    """Return the data and the contexts that a factory is given."""
    pair = data if isinstance(data, tuple) else (data, None)
    if len(pair) != 2:
        raise ValueError(
            f"Expected data (N, {dim}), or a pair of it and contexts, got {len(pair)}."
        )
    x, context = pair
    return x, None if context is None else double("data", context)


def _units(dim: int, x: Any, layout: Layout | None) -> list[Bijector]:
    """Return the maps from standard coordinates to the units of the data."""
    if layout is not None:
        return [*([] if x is None else units_of(layout.on_the_line(x))), layout.onto()]
    if x is None:
        return []
    rows = double("data", x)
    _check_rows("data", rows, dim)
    return units_of(rows)


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
