"""The devices of a training run's arrays: one device, or a mesh."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from afflow._tools.arrays import is_key


@dataclass(frozen=True)
class Placement:
    """All arrays on the default device."""

    @property
    def num_parts(self) -> int:
        """The number of parts that a minibatch is split into."""
        return 1

    def everywhere(self, tree: Any) -> Any:
        """Return the arrays of a pytree, replicated on every device."""
        return tree

    def params(self, tree: Any) -> Any:
        """Return parameters and optimizer state on the devices that train them."""
        return tree

    def held(self, tree: Any) -> Any:
        """Constrain traced parameters and optimizer state to the devices of `params`."""
        return tree

    def stack(self, tree: Any) -> Any:
        """Return stacked minibatches `(S, B, ...)`, each minibatch split over the devices."""
        return jax.tree.map(jnp.asarray, tree)

    def fetched(self, tree: Any) -> Any:
        """Return the arrays of a pytree on the default device of this process."""
        return tree


@dataclass(frozen=True)
class MeshPlacement(Placement):
    """Rows split over the mesh axis `data`, large weights over the mesh axis `model`.

    Args:
        mesh: a mesh with an axis `data`, and an axis `model` to split weights.
    """

    mesh: Mesh

    @property
    def num_parts(self):
        return self.mesh.shape["data"]

    def everywhere(self, tree):
        return jax.tree.map(lambda a: self._put(a) if _is_local(a) else a, tree)

    def params(self, tree):
        return jax.tree.map(lambda a: self._put(a, *self._split(a)), tree)

    def held(self, tree):
        def hold(a):
            return jax.lax.with_sharding_constraint(a, self._sharding(*self._split(a)))

        return jax.tree.map(hold, tree)

    def stack(self, tree):
        return jax.tree.map(lambda a: self._put(a, None, "data"), tree)

    def fetched(self, tree):
        tree = jax.jit(lambda tree: tree, out_shardings=self._sharding())(tree)
        return jax.tree.map(_move_to_host, tree)

    def _split(self, array: Any) -> tuple[str, ...]:
        """Return the mesh axes of an array: `model` for a matrix with divisible rows, else none."""
        size = self.mesh.shape.get("model", 1)
        can = size > 1 and jnp.ndim(array) > 1 and array.shape[0] % size == 0
        return ("model",) if can else ()

    def _sharding(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def _put(self, array: Any, *axes: str | None) -> jax.Array:
        if is_key(array):
            impl = jax.random.key_impl(array)
            return jax.random.wrap_key_data(self._put(jax.random.key_data(array)), impl=impl)
        value = np.asarray(array)
        return jax.make_array_from_callback(value.shape, self._sharding(*axes), value.__getitem__)


def make_placement(mesh: Mesh | None) -> Placement:
    """Return the placement on a mesh, or on the default device for `None`.

    Raises:
        ValueError: for a mesh with axes other than `data` and `model`, or without `data`.
    """
    if mesh is None:
        return Placement()
    if "data" not in mesh.axis_names or not {"data", "model"}.issuperset(mesh.axis_names):
        raise ValueError(f"Expected a mesh of axes data and model, got {mesh.axis_names}.")
    return MeshPlacement(Mesh(mesh.devices, mesh.axis_names))  # with automatic axes


def _move_to_host(value: jax.Array) -> jax.Array:
    """Return an array on the default device, by way of the host."""
    if is_key(value):
        data, impl = jnp.asarray(np.asarray(jax.random.key_data(value))), jax.random.key_impl(value)
        return jax.random.wrap_key_data(data, impl=impl)
    return jnp.asarray(np.asarray(value))


def _is_local(value: Any) -> bool:
    """Return whether a value is an array that is not yet on a mesh. Keys do not count."""
    if isinstance(value, jax.Array):
        return not (is_key(value) or isinstance(value.sharding, NamedSharding))
    return isinstance(value, np.ndarray)
