"""Objects of other libraries that are pytrees, held in modules as constants."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.constants import Constant
from afflow._tools.outline import Outlined


class _Structure:
    """A pytree without its arrays. Equal structures have one hash, which JAX does not promise.

    Leaves that are no arrays, such as objects that are not pytrees, are a part of the structure.
    They are equal if they are the same objects.
    """

    def __init__(self, tree: Any, places: tuple[int, ...], others: tuple[Any, ...]):
        self.tree = tree
        self.places = places  # the indices of the leaves that are arrays
        self.others = others  # the other leaves, in order

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Structure)
            and self.tree == other.tree
            and self.places == other.places
            and list(map(id, self.others)) == list(map(id, other.others))
        )

    def __hash__(self) -> int:
        return hash((self.tree.num_leaves, self.places))

    def __repr__(self) -> str:
        return "..."

    def build(self, arrays: list[jax.Array]) -> Any:
        """Return the pytree with the given arrays."""
        found, others = dict(zip(self.places, arrays, strict=True)), iter(self.others)
        leaves = [found[i] if i in found else next(others) for i in range(self.tree.num_leaves)]
        return jax.tree.unflatten(self.tree, leaves)


class Held(Outlined, nnx.Module):
    """An object of another library as a module: the arrays are constants, the rest is static.

    Args:
        source: a pytree.
    """

    def __init__(self, source: Any):
        leaves, tree = jax.tree.flatten(source)
        places = tuple(i for i, leaf in enumerate(leaves) if _is_array(leaf))
        others = tuple(leaf for leaf in leaves if not _is_array(leaf))
        self.arrays = nnx.List([Constant(jnp.asarray(leaves[i])) for i in places])
        self.structure = _Structure(tree, places, others)

    def build(self, like: jax.Array | None = None) -> Any:
        """Return the object, with floating-point arrays in the type of `like`."""
        return self.structure.build([_cast(array[...], like) for array in self.arrays])


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _cast(value: jax.Array, like: jax.Array | None) -> jax.Array:
    is_float = jnp.issubdtype(value.dtype, jnp.floating)
    return value if like is None or not is_float else value.astype(like.dtype)
