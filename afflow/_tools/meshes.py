"""The division of the events of one call over the devices of a mesh."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from afflow._tools.shapes import Shape

_ROWS = "data"  # the mesh axis that divides events, as in `fit`


class Division(NamedTuple):
    """A mesh, the mesh axes that divide a batch of events, and those that divide the results."""

    mesh: AbstractMesh
    axes: tuple[str, ...]
    spec: PartitionSpec

    @property
    def num_parts(self) -> int:
        """The number of parts that the events are divided into."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes)

    def run(self, f: Callable, *args: Any) -> Any:
        """Return `f(*args)`, whose arrays begin with the axes of the batch.

        Inside `f` the compiler places the arrays. With explicit axes, every operation that mixes
        the axes of an array would have to say where its result lies.
        """
        with jax.sharding.use_abstract_mesh(self.mesh):
            return jax.sharding.auto_axes(f, out_sharding=self.spec)(*args)

    def map(self, f: Callable, parts: Any, *whole: Any) -> Any:
        """Return `f(parts, *whole)`, with the second axis of `parts` divided over the devices.

        Each device calls `f` with its own share of the events. The compiler alone would repeat
        some of the work of a sampler on every device.
        """
        if not self.axes:
            return f(parts, *whole)
        share, replicated = PartitionSpec(None, self.axes), PartitionSpec()
        specs: Any = {"in_specs": (share, *[replicated] * len(whole)), "out_specs": share}
        # Loops start from constants. The check of types would want each start marked as varying.
        one = jax.shard_map(f, **specs, axis_names=set(self.axes), check_vma=False)
        return one(parts, *whole)


def find_division(
    batch: Shape, arrays: Sequence[tuple[jax.Array, int]], others: Any
) -> Division | None:
    """Return how a batch is divided, or `None` if no mesh is in use.

    The mesh is that of any array, or else the mesh of `jax.set_mesh`. If an explicit mesh divides
    leading axes of an array, the events and the results are divided likewise. Otherwise the mesh
    axis `data` divides the events, and each device receives all results. Within `jax.shard_map` the
    events are divided already.

    Args:
        batch: the axes of the batch.
        arrays: events and contexts, each with the number of its inner axes.
        others: a pytree of further arrays.
    """
    leaves = [*(array for array, _ in arrays), *jax.tree.leaves(others)]
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    meshes.append(jax.sharding.get_abstract_mesh())
    mesh = next((mesh for mesh in meshes if not mesh.empty), None)
    if mesh is None or AxisType.Manual in mesh.axis_types:
        return None
    for array, inner in arrays:
        leading = jax.typeof(array).sharding.spec[: array.ndim - inner]
        if any(leading):
            spec = PartitionSpec(*[None] * (len(batch) - len(leading)), *leading)
            return Division(mesh, sum(map(_as_tuple, leading), ()), spec)
    axes = (_ROWS,) if batch and _ROWS in mesh.axis_names else ()
    return Division(mesh, axes, PartitionSpec())


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return axes if isinstance(axes, tuple) else (axes,) if axes else ()
