"""The devices of a training run's arrays: one device, or a mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from afflow._tools.arrays import is_key

P = ParamSpec("P")
Result = TypeVar("Result")
_NO_MESH = Mesh(np.empty((), object), ())


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

    def fetched(self, model: Any) -> Any:
        """Return a model on the default device of this process."""
        return model


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
        return jax.tree.map(lambda a: self._put(a) if self._is_elsewhere(a) else a, tree)

    def params(self, tree):
        return jax.tree.map(lambda a: self._put(a, *self._split(a)), tree)

    def held(self, tree):
        def hold(a):
            return jax.lax.with_sharding_constraint(a, self._sharding(*self._split(a)))

        return jax.tree.map(hold, tree)

    def stack(self, tree):
        return jax.tree.map(lambda a: self._put(a, None, "data"), tree)

    def fetched(self, model):
        graph, state = nnx.split(model)  # arrays that parts share stay shared
        state = jax.jit(_return, out_shardings=self._sharding())(state)
        return nnx.merge(graph, jax.tree.map(_move_to_host, state))

    def _is_elsewhere(self, value: Any) -> bool:
        """Return whether a value is an array that is not yet on this mesh. Keys do not count."""
        if isinstance(value, jax.Array):
            return not (is_key(value) or getattr(value.sharding, "mesh", None) == self.mesh)
        return isinstance(value, np.ndarray)

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


def off_mesh(function: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function to run outside of `jax.set_mesh`, on arrays with automatic axes.

    Such a function places arrays itself.
    """
    call: Any = function

    @wraps(function)
    def run(*args, **options):
        with jax.set_mesh(_NO_MESH):
            args, options = _relax((args, options))
            return call(*args, **options)

    return run


def on_mesh(train: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function that trains: within `jax.set_mesh`, that mesh is its argument `mesh`.

    A mesh of other axes than `make_placement` allows does not count.
    """
    call: Any = off_mesh(train)

    @wraps(train)
    def run(*args, **options):
        current = jax.sharding.get_mesh()
        if options.get("mesh") is None and _can_train(current):
            options["mesh"] = current
        return call(*args, **options)

    return run


def make_placement(mesh: Mesh | None) -> Placement:
    """Return the placement on a mesh, or on the default device for `None`.

    Raises:
        ValueError: for a mesh with axes other than `data` and `model`, or without `data`.
    """
    if mesh is None:
        return Placement()
    if not _can_train(mesh):
        raise ValueError(f"Expected a mesh of axes data and model, got {mesh.axis_names}.")
    return MeshPlacement(_relax_mesh(mesh))


def _relax(tree: Any) -> Any:
    """Return a pytree whose arrays on a mesh lie on the same mesh with automatic axes."""
    if not any(map(_is_on_mesh, jax.tree.leaves(tree))):
        return tree
    return jax.tree.map(_relax_part, tree, is_leaf=lambda part: isinstance(part, nnx.Module))


def _relax_part(part: Any) -> Any:
    if isinstance(part, nnx.Module):
        graph, state = nnx.split(part)  # arrays that modules share stay shared
        return nnx.merge(graph, jax.tree.map(_relax_part, state))
    if not _is_on_mesh(part):
        return part
    spec = PartitionSpec(*part.sharding.spec[: part.ndim])  # that of a key may count its data
    return jax.device_put(part, NamedSharding(_relax_mesh(part.sharding.mesh), spec))


def _is_on_mesh(value: Any) -> bool:
    return isinstance(getattr(value, "sharding", None), NamedSharding)


def _relax_mesh(mesh: Mesh) -> Mesh:
    return Mesh(mesh.devices, mesh.axis_names)


def _return(tree: Any) -> Any:
    return tree


def _can_train(mesh: Mesh) -> bool:
    return "data" in mesh.axis_names and {"data", "model"}.issuperset(mesh.axis_names)


def _move_to_host(value: jax.Array) -> jax.Array:
    """Return an array on the default device, by way of the host."""
    if is_key(value):
        data, impl = jnp.asarray(np.asarray(jax.random.key_data(value))), jax.random.key_impl(value)
        return jax.random.wrap_key_data(data, impl=impl)
    return jnp.asarray(np.asarray(value))
