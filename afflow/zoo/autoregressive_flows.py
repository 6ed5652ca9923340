"""Factories: masked and inverse autoregressive flows, affine and with splines."""

import math
from collections.abc import Callable
from functools import partial
from typing import Unpack

import jax
from flax import nnx
from jax.typing import DTypeLike

from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Chain, Inverse
from afflow.bijectors.domains import CircularShift
from afflow.bijectors.solvers import Incremental, Solver
from afflow.conditioners.made import MADE
from afflow.conditioners.periodic import Periodic
from afflow.core.bijector import Bijector
from afflow.core.univariate import count_params
from afflow.distributions.standard import Uniform
from afflow.models.flow import Flow
from afflow.univariates.affine import Affine
from afflow.univariates.spline import CircularSpline, RationalQuadraticSpline
from afflow.zoo.stacking import (
    Make,
    MaskedOptions,
    Mix,
    Outside,
    add_mix,
    build_univariate,
    choose_mix,
    inverse_lu,
    reverse,
    stack_layers,
)


def maf(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    residual: bool = False,
    dropout: float = 0.0,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix | None = None,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a masked autoregressive flow: density in one parallel pass per layer.

    The flow stacks autoregressive layers on a standard normal. Before each layer stands a trained
    linear map that starts as a random permutation. Before training, the flow only permutes and
    standardises.

    The defaults were chosen on tables and toy densities of 100 to 100,000 rows. The default
    activation is `tanh`: a bounded conditioner does not extrapolate at rows far out.

    Papamakarios et al. 2017, arXiv:1705.07057.

    Args:
        dim: number of coordinates `D`.
        num_layers: autoregressive layers; more than two are compiled as one (`Repeat`).
        hidden: widths of the hidden layers of each `MADE`.
        context_dim: length of the context vector; 0 for an unconditional flow.
        univariate: makes the scalar map of the coordinates.
        activation: the nonlinearity of each `MADE`.
        residual: whether each `MADE` is residual.
        dropout: the probability to drop a hidden unit of a `MADE` in `fit`.
        dtype: type of the operands of the matrix products in each `MADE`. `jnp.bfloat16` gives
            mixed precision; log-determinants stay in float32.
        solver: runs the serial direction, here sampling.
        mix: makes the bijector before each layer from `(dim, rngs)`. By default it is a trained
            linear map, `LU(dim, Shuffle(dim, rngs=rngs))`, and a single layer has none. The
            paper reverses the order instead: `lambda dim, rngs: Reverse(dim)`.
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
    make = _make_layer(
        dim, hidden, context_dim, univariate, activation, residual, dropout, dtype, solver
    )
    return stack_layers(
        dim, add_mix(dim, mix or choose_mix(num_layers), make), num_layers, rngs, **outside
    )


def iaf(
    dim: int,
    *,
    num_layers: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    residual: bool = False,
    dropout: float = 0.0,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix | None = None,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return an inverse autoregressive flow: sampling in one parallel pass per layer.

    The layers are the inverses of the layers of `maf`, and take the same arguments. `solver` runs
    the density of given data.

    Kingma et al. 2016, arXiv:1606.04934.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.iaf(2, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> x, log_prob = flow.sample_and_log_prob(jax.random.key(0), 3)
        >>> log_prob.shape
        (3,)
    """
    make = _make_layer(
        dim, hidden, context_dim, univariate, activation, residual, dropout, dtype, solver
    )
    mix = mix or choose_mix(num_layers, inverse_lu)
    read_backwards = add_mix(dim, mix, lambda rngs: Inverse(make(rngs)))
    return stack_layers(dim, read_backwards, num_layers, rngs, **outside)


def made(
    dim: int,
    *,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    univariate: Callable[[], Bijector] = Affine,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.tanh,
    residual: bool = False,
    dropout: float = 0.0,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return one autoregressive layer in the natural order, with the arguments of `maf`.

    With `Affine`, each coordinate is normal given the earlier coordinates.

    Germain et al. 2015, arXiv:1502.03509.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.made(2, rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """
    make = _make_layer(
        dim, hidden, context_dim, univariate, activation, residual, dropout, dtype, solver
    )
    return stack_layers(dim, make, 1, rngs, **outside)


def nsf(
    dim: int,
    *,
    num_layers: int = 8,
    num_bins: int = 8,
    bound: float = 5.0,
    rngs: nnx.Rngs,
    **options: Unpack[MaskedOptions],
) -> Flow:
    """Return an autoregressive neural spline flow: `maf` with rational-quadratic splines.

    Each spline has `num_bins` bins and is the identity beyond `bound`. The bound is in units of
    the noise, and with `data` in standard deviations of the data. The other arguments are
    described at `maf`.

    Durkan et al. 2019, arXiv:1906.04032.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.nsf(2, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """
    spline = partial(RationalQuadraticSpline, num_bins, bound)
    return maf(dim, num_layers=num_layers, univariate=spline, rngs=rngs, **options)


def _make_layer(
    dim, hidden, context_dim, univariate, activation, residual, dropout, dtype, solver
) -> Make:
    """Return a function that builds one autoregressive layer around a MADE."""

    def make(rngs):
        scalar = build_univariate(univariate)
        conditioner = MADE(
            dim,
            count_params(scalar),
            hidden,
            context_dim=context_dim,
            activation=activation,
            residual=residual,
            dropout=dropout,
            dtype=dtype,
            rngs=rngs,
        )
        return MaskedAutoregressive(conditioner, scalar, solver)

    return make


def circular_nsf(
    dim: int,
    *,
    num_layers: int = 5,
    hidden: tuple[int, ...] = (64, 64),
    num_bins: int = 8,
    context_dim: int = 0,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    residual: bool = False,
    dropout: float = 0.0,
    dtype: DTypeLike | None = None,
    solver: Solver = Incremental(),
    mix: Mix = reverse,
    rngs: nnx.Rngs,
) -> Flow:
    r"""Return a spline flow of angles on $[-\pi, \pi)^D$, with arguments of `nsf`.

    Each layer applies an autoregressive `CircularSpline`, whose conditioner sees cosines and sines,
    and then turns the angles by learned phases. A turn before the first spline would not change the
    uniform base. The base cannot be replaced: it lives on the circle. Densities are per radian.
    `mix` must permute the angles: other maps are not periodic.

    Rezende et al. 2020, arXiv:2002.02428.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.zoo.circular_nsf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> round(flow.log_prob(jnp.zeros(2)).item(), 4)  # - 2 log(2 pi)
        -3.6758
    """

    def layer(rngs):
        spline = CircularSpline(num_bins)
        made = MADE(
            2 * dim,
            count_params(spline),
            hidden,
            context_dim=context_dim,
            activation=activation,
            residual=residual,
            dropout=dropout,
            dtype=dtype,
            rngs=rngs,
        )
        angles = MaskedAutoregressive(Periodic(made), spline, solver)
        return Chain([mix(dim, rngs), angles, CircularShift(dim)])

    circle = Uniform(dim, -math.pi, math.pi)
    return stack_layers(dim, layer, num_layers, rngs, base=circle)
