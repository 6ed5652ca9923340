"""The parts that all conversions share: names and errors, arrays, order, chains and bases."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from afflow.bijectors.compose import Chain, Inverse
from afflow.bijectors.elementwise import Standardize
from afflow.bijectors.permutations import Permutation
from afflow.core.bijector import Bijector
from afflow.distributions.location_scale import DiagonalNormal
from afflow.distributions.standard import Normal
from afflow.models.flow import Flow


def name_part(part: Any) -> str:
    """Return the module and name of a class, or of the class of an object."""
    kind = part if isinstance(part, type) else type(part)
    return f"{kind.__module__}.{kind.__qualname__}"


def find_converter(table: Mapping[str, Callable], part: Any, library: str, place: str) -> Callable:
    """Return the entry of `table` for the class of `part`.

    A subclass may compute another density, so only the exact class counts.

    Raises:
        ValueError: if the table has no such class.
    """
    if name_part(part) not in table:
        refuse(library, " or ".join(table), name_part(part), place)
    return table[name_part(part)]


def check_name(expected: str, part: Any, library: str, place: str) -> None:
    """Raise `ValueError` unless the class of `part` has the module and name `expected`."""
    if name_part(part) != expected:
        refuse(library, expected, name_part(part), place)


def refuse(library: str, expected: str, got: Any, place: str) -> NoReturn:
    """Raise the `ValueError` for a part of a flow that has no counterpart."""
    raise ValueError(f"Expected a flow of {library} with {expected}, got {got} at {place}.")


def to_numpy(array: Any) -> np.ndarray:
    """Return a tensor of torch, or an array of JAX, as an array of NumPy."""
    return array.detach().cpu().numpy() if hasattr(array, "detach") else np.asarray(array)


def to_jax(array: np.ndarray) -> jax.Array:
    """Return an array as floats of JAX, in single precision unless x64 is enabled."""
    return jnp.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))


def invert(bijector: Bijector) -> Bijector:
    """Return the inverse of a bijector, without a pair of `Inverse`s."""
    return bijector.bijector if isinstance(bijector, Inverse) else Inverse(bijector)


def gather(indices: np.ndarray) -> Permutation:
    """Return the permutation with `inverse(y) = y[indices]`."""
    return Permutation(np.argsort(indices))


def reorder(bijector: Bijector, order: np.ndarray) -> Bijector:
    """Return a bijector that acts on the coordinates in another order: first on `order[0]`."""
    return chain([gather(np.argsort(order)), bijector, gather(order)])


def chain(bijectors: Sequence[Bijector]) -> Bijector:
    """Return the chain of bijectors, with neighbouring permutations merged."""
    merged: list[Bijector] = []
    for bijector in _flatten(bijectors):
        before = merged[-1] if merged else None
        if isinstance(bijector, Permutation) and isinstance(before, Permutation):
            bijector = Permutation(np.array(before.order)[np.array(bijector.order)])
            merged.pop()
        if not (isinstance(bijector, Permutation) and bijector.is_triangular):
            merged.append(bijector)
    if not merged:
        return Permutation(range(bijectors[0].event_shape[0]))
    return Chain(merged) if len(merged) > 1 else merged[0]


def _flatten(bijectors: Sequence[Bijector]) -> list[Bijector]:
    parts = [b.bijectors if isinstance(b, Chain) else [b] for b in bijectors]
    return [bijector for part in parts for bijector in part]


def chain_calls(layers: Sequence[Bijector]) -> Bijector:
    """Return the bijector whose `inverse` runs the `inverse` of each layer, the first one first."""
    return chain(layers[::-1])


def build_flow(bijector: Bijector, loc: np.ndarray, scale: np.ndarray, *, trained: bool) -> Flow:
    """Return the flow with a normal base of a mean and a standard deviation per coordinate.

    Args:
        bijector: the map from noise to data.
        loc: the means, `(D,)`.
        scale: the standard deviations, `(D,)`.
        trained: whether the base has parameters.
    """
    if trained:
        return Flow(DiagonalNormal(loc, scale), bijector)
    standard = np.all(loc == 0) and np.all(scale == 1)
    layers = [bijector] if standard else [Standardize(loc, scale), bijector]
    return Flow(Normal(loc.shape), chain(layers))
