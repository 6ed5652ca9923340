"""The rows that every estimator trains on, and the options of their training."""

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arrays import cast, real_array, to_double
from afflow._tools.constants import Constant
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape
from afflow.models.flow import Flow
from afflow.sbi.simulations import find_finite
from afflow.training.callbacks import Callback
from afflow.training.checkpoint import Checkpoint
from afflow.training.optimizer import Optimizer


class MakeFlow(Protocol):
    """A factory of flows, such as `afflow.nsf` or `functools.partial(afflow.maf, num_layers=4)`."""

    def __call__(self, dim: int, *, context_dim: int, data: Any, rngs: nnx.Rngs) -> Flow:
        """Return a flow."""
        ...


class FitOptions(TypedDict, total=False):
    """Options of `afflow.fit`, which documents them."""

    validation: float
    batch_size: int | None
    max_epochs: int
    patience: int
    learning_rate: float | None
    weight_decay: float | None
    optimizer: Optimizer | None
    ema: float | None
    checkpoint: Checkpoint | None
    callbacks: Iterable[Callback]
    progress: bool
    label: str


def take_finite(theta: Any, x: Any) -> tuple[jax.Array, jax.Array]:
    """Return the rows of `theta` `(N, D)` and `x` `(N, *x_shape)` that are finite.

    A warning says how many rows are left out.

    Raises:
        ValueError: for other shapes, unequal lengths, or no finite row.
    """
    pair = jnp.asarray(real_array("theta", theta), float), jnp.asarray(real_array("x", x), float)
    if pair[0].ndim != 2 or pair[1].ndim < 2 or len(pair[0]) != len(pair[1]):
        raise ValueError(
            f"Expected theta.shape (N, D) and x.shape (N, *x_shape), got {pair[0].shape} and "
            f"{pair[1].shape}."
        )
    good = find_finite(pair[0]) & find_finite(pair[1])
    if good.all():
        return pair
    if not good.any():
        raise ValueError(f"Expected some finite rows, got {len(good)} rows with NaN or infinity.")
    warnings.warn(
        f"{(~good).sum()} of {len(good)} simulations have NaN or infinity, and are left out.",
        stacklevel=3,
    )
    return pair[0][good], pair[1][good]


class Summary(Outlined, nnx.Module):
    """A network of standardised data. Without a network it returns the z-scores as a vector.

    Args:
        x: the data `(N, *x_shape)` whose means and standard deviations standardise. A constant
            entry is divided by 1.
        network: maps one `(*x_shape,)` to a vector, or `None`.
    """

    has_units = True  # `fit` does not warn of contexts that are standardised here

    def __init__(self, x: jax.Array, network: Callable | None):
        rows = to_double("x", x)
        std = rows.std(0)
        self.mean = Constant(cast("mean", rows.mean(0)))
        self.std = Constant(cast("std", np.where(std > 0, std, 1.0), is_scale=True))
        self.network = network

    @property
    def x_shape(self) -> Shape:
        """The shape of one `x`."""
        return self.mean.shape

    @property
    def size(self) -> int:
        """The length of the vector that the summary returns.

        Raises:
            ValueError: if the network does not return a vector for one `x`.
        """
        if self.network is None:
            return math.prod(self.x_shape)
        found = jax.eval_shape(self.network, jax.ShapeDtypeStruct(self.x_shape, float)).shape
        if len(found) != 1:
            raise ValueError(f"Expected an embedding that returns a vector, got shape {found}.")
        return found[0]

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the vector of one `x`, or of each `x` in a minibatch for a network."""
        mean, std = (
            jnp.broadcast_to(a[...].astype(x.dtype), x.shape) for a in (self.mean, self.std)
        )
        scores = (x - mean) / std
        return scores.reshape(-1) if self.network is None else self.network(scores)
