"""The parts that all factories share: stacks of layers, mixing, bases and the units of data."""

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from afflow._tools.arguments import check_callable, check_instance, check_rngs
from afflow._tools.arrays import to_double
from afflow._tools.shapes import check_size
from afflow.bijectors.compose import Chain, Inverse, Repeat
from afflow.bijectors.embedding import Embedded, ZScores
from afflow.bijectors.linear import LU
from afflow.bijectors.permutations import Reverse, Shuffle
from afflow.bijectors.solvers import Solver
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.distributions.standard import Normal
from afflow.models.columns import Columns, Kinds, Layout, make_layout
from afflow.models.flow import Flow
from afflow.univariates.per_dimension import PerDimension
from afflow.univariates.spline import CircularSpline
from afflow.zoo.units import make_units

Data = Any | tuple[Any, Any]
Make = Callable[[nnx.Rngs], Bijector]
Mix = Callable[[int, nnx.Rngs], Bijector]


class Outside(TypedDict, total=False):
    """Options of every factory for the base and the units around its layers.

    Args:
        data: rows `(N, D)`, or a pair of rows and contexts `(N, context_dim)`. The flow uses the
            rows to standardise: by mean and standard deviation, or, for heavy-tailed columns, by
            quantiles and `HeavyTails`. Contexts are standardised by `ZScores`.
        columns: the kind of each column of the data: `Real()`, `Above(0.0)`, `Between(0.0, 1.0)`,
            `Whole()` or `Categories(...)`, as a sequence, or by position or name. A column that is
            not mentioned is `Real()`. In a data frame or a dictionary its entries decide: floats
            are `Real()`, integers are `Whole()` without bounds, text and booleans are
            `Categories`. The flow then has densities and samples in the units of a table
            (`Columns`). Its columns are mapped to the line and standardised there.
        base: the distribution of the noise, in place of the standard normal.
    """

    data: Data | None
    columns: Kinds | None
    base: Distribution | None


class NetworkOptions(Outside, total=False):
    """Options of the layers of every factory with networks.

    Args:
        hidden: widths of the hidden layers of each network.
        context_dim: length of the context vector; 0 for an unconditional flow.
        activation: the nonlinearity of each network.
        mix: makes the bijector before each layer from `(dim, rngs)`.
    """

    hidden: tuple[int, ...]
    context_dim: int
    activation: Callable[[jax.Array], jax.Array]
    mix: Mix | None


class MaskedOptions(NetworkOptions, total=False):
    """Options of every factory of autoregressive layers over a `MADE`, documented at `maf`.

    Args:
        residual: whether each `MADE` is residual.
        dropout: the probability to drop a hidden unit of a `MADE` in `fit`.
        dtype: type of the operands of the matrix products in each `MADE`.
        solver: runs the serial direction.
    """

    residual: bool
    dropout: float
    dtype: DTypeLike | None
    solver: Solver


_CHAIN_UP_TO = 2


def lu(dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return a trained linear map around a random permutation, the default mix between layers."""
    return LU(dim, Shuffle(dim, rngs=rngs))


def inverse_lu(dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return the inverse of `lu`, which samples by products and has a density by two solves."""
    return Inverse(lu(dim, rngs))


def reverse(dim: int, rngs: nnx.Rngs) -> Bijector:
    """Return `Reverse(dim)`, the mix of the papers on autoregressive flows and couplings."""
    return Reverse(dim)


def build_univariate(univariate: Callable[[], Bijector]) -> Bijector:
    """Build the univariate of one layer. Raise `ValueError` unless given a function."""
    if isinstance(univariate, Bijector):
        name = type(univariate).__name__
        raise ValueError(f"Expected univariate=lambda: {name}(...), got one {name}.")
    check_callable("univariate", univariate, "afflow.Affine")
    return univariate()


def add_mix(dim: int, mix: Mix | None, make: Make) -> Make:
    """Return a function that builds a layer, with the bijector of `mix` before it unless `None`."""
    if mix is not None:
        check_callable("mix", mix, "lambda dim, rngs: Reverse(dim)", 2)
    return make if mix is None else lambda rngs: Chain([mix(dim, rngs), make(rngs)])


def choose_mix(num_layers: int, several: Mix = lu) -> Mix | None:
    """Return the default mix for `num_layers` layers: `several`, or `None` for a single layer."""
    check_size("num_layers", num_layers)
    return several if num_layers > 1 else None


def stack_layers(
    dim: int,
    make: Make,
    num_layers: int,
    rngs: nnx.Rngs,
    *,
    first: Sequence[Bijector] = (),
    unroll: bool = False,
    data: Data | None = None,
    columns: Kinds | None = None,
    base: Distribution | None = None,
    **unknown: Any,
) -> Flow:
    """Return a flow of layers between a base and the units of the data.

    Args:
        dim: number of coordinates `D`.
        make: builds one layer.
        num_layers: number of layers.
        rngs: passed to `make`.
        first: bijectors between the base and the layers.
        unroll: write the layers out, see `Repeat`.
        data: see `Outside`.
        columns: see `Outside`.
        base: see `Outside`.
        **unknown: options that the factory does not have, an error.

    Raises:
        TypeError: for unknown options.
        ValueError: for sizes out of range, `data` of another shape, or layers that move
            coordinates away from their `PerDimension` univariates.
    """
    if unknown:
        raise TypeError(
            f"Expected arguments that the factory documents (such as num_layers, hidden, "
            f"context_dim, activation, mix), or data, columns and base, got {list(unknown)}."
        )
    check_size("dim", dim)
    check_size("num_layers", num_layers)
    if base is not None:
        check_instance("base", base, Distribution)
    check_rngs(rngs)
    layers = _stack(make, num_layers, rngs, unroll=unroll)
    if num_layers > 1:
        _check_kinds(layers[0])
    x, context = _pair_of(dim, data)
    layout = None if columns is None else make_layout(dim, columns, x)
    units = _make_units(dim, x, layout)
    if units:
        _check_line(layers[0])
    bijector = Chain([*first, *layers, *units])
    if context is not None:
        shape = bijector.context_shape or (0,)
        _check_rows("contexts", context, *shape)
        bijector = Embedded(bijector, ZScores(context), shape)
    return Flow(base or Normal(dim), bijector if layout is None else Columns(bijector, layout))


def _stack(make: Make, num_layers: int, rngs: nnx.Rngs, *, unroll: bool) -> list[Bijector]:
    if num_layers <= _CHAIN_UP_TO:
        return [make(rngs) for _ in range(num_layers)]
    return [Repeat(make, num_layers, unroll=unroll, rngs=rngs)]


def _pair_of(dim: int, data: Any) -> tuple[Any, np.ndarray | None]:
    """Split the `data` argument of a factory into rows and contexts."""
    pair = data if isinstance(data, tuple) else (data, None)
    if len(pair) != 2:
        raise ValueError(
            f"Expected data (N, {dim}), or a pair of it and contexts, got {len(pair)}."
        )
    x, context = pair
    return x, None if context is None else to_double("data", context)


def _make_units(dim: int, x: Any, layout: Layout | None) -> list[Bijector]:
    """Return the maps from standard coordinates to the units of the data."""
    if layout is not None:
        return [*([] if x is None else make_units(layout.on_the_line(x))), layout.onto()]
    if x is None:
        return []
    rows = to_double("data", x)
    _check_rows("data", rows, dim)
    bad = np.flatnonzero(~np.isfinite(rows).all(1))
    if bad.size:
        raise ValueError(
            f"Expected finite data, got {bad.size} of {len(rows)} rows with NaN or infinity, the "
            f"first at index {bad[0]}: drop or impute them."
        )
    return make_units(rows)


def _check_rows(name: str, rows: np.ndarray, size: int) -> None:
    if jnp.ndim(rows) != 2 or jnp.shape(rows)[1] != size:
        raise ValueError(f"Expected {name}.shape (N, {size}), got {jnp.shape(rows)}.")


def _check_line(layer: Bijector) -> None:
    """Raise `ValueError` if a layer maps a circle, whose angles cannot be standardised."""
    if any(isinstance(part, CircularSpline) for _, part in nnx.iter_graph(layer)):
        raise ValueError(
            "Expected no data and no columns with a CircularSpline, whose angles are in radians: "
            "leave them out, and scale the other coordinates by hand."
        )


def _check_kinds(layer: Bijector) -> None:
    """Raise `ValueError` if layers would bring a column to the univariate of another column."""
    placed = any(isinstance(part, PerDimension) for _, part in nnx.iter_graph(layer))
    if placed and not layer.is_triangular:
        raise ValueError(
            "Expected layers that keep the order of the coordinates with PerDimension: take one "
            "layer, or autoregressive ones with mix=lambda dim, rngs: Permutation(range(dim))."
        )
