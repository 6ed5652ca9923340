"""The division of the events of one call over the devices of a mesh."""

import math
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from afflow._tools.shapes import Shape

_CONFIG: Any = jax.config  # type checkers do not know its options
_ROWS = "data"  # the mesh axis that divides events, as in `fit`


class Division(NamedTuple):
    """A mesh, the mesh axes that divide a batch of events, and those that divide the results."""

    mesh: AbstractMesh
    axes: tuple[str, ...]
    spec: PartitionSpec
    by_compiler: bool  # whether the compiler divides the work, because `jax.shard_map` cannot

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
            return jax.sharding.auto_axes(f, out_sharding=self.spec)(*jax.tree.map(_enter, args))

    def map(self, f: Callable, parts: Any, *whole: Any) -> Any:
        """Return `f(parts, *whole)`, with the second axis of `parts` divided over the devices.

        Each device calls `f` with its own share of the events. The compiler alone would repeat
        some of the work of a sampler on every device.
        """
        if not self.axes:
            return f(parts, *whole)
        share, replicated = PartitionSpec(None, self.axes), PartitionSpec()
        if self.by_compiler:
            return f(jax.lax.with_sharding_constraint(parts, share), *whole)
        specs: Any = {"in_specs": (share, *[replicated] * len(whole)), "out_specs": share}
        # Loops start from constants. The check of types would want each start marked as varying.
        one = jax.shard_map(f, **specs, axis_names=set(self.axes), check_vma=False)
        return one(parts, *whole)


def placed(f: Callable) -> Callable:
    """Decorate a function of arrays, within `jax.jit`: on a mesh, the compiler places its arrays.

    Keyword arguments of the result are static.
    """

    @wraps(f)
    def run(*args, **static):
        division, one = find_division((), (), args), partial(f, **static)
        return division.run(one, *args) if division else one(*args)

    return run


def _enter(value: jax.Array) -> jax.Array:
    """Return an array of numbers on the mesh of the context, by a product with 1.

    JAX would place the array itself, but would place its gradient outside of the mesh. The
    gradient could then not be added to other gradients.
    """
    is_outside = jax.typeof(value).sharding.mesh.empty and jnp.issubdtype(value.dtype, jnp.inexact)
    return value * jnp.ones((), value.dtype) if is_outside else value


def find_division(
    batch: Shape, arrays: Sequence[tuple[jax.Array, int]], model: Any, others: Any = ()
) -> Division | None:
    """Return how a batch is divided, or `None` if no mesh is in use.

    The mesh is that of any array, or else the mesh of `jax.set_mesh`. If an explicit mesh divides
    leading axes of an array, the events and the results are divided likewise. Otherwise the mesh
    axis `data` divides the events, and each device receives all results. Within `jax.shard_map` the
    events are divided already.

    Args:
        batch: the axes of the batch.
        arrays: events and contexts, each with the number of its inner axes.
        model: a model; if a part of it has a false attribute `runs_in_shard_map`, the compiler
            divides the work.
        others: a pytree of further arrays.
    """
    if _CONFIG.jax_disable_jit:
        return None  # an operation alone cannot be divided
    leaves = [*(array for array, _ in arrays), *jax.tree.leaves((model, others))]
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in leaves]
    meshes.append(jax.sharding.get_abstract_mesh())
    mesh = next((mesh for mesh in meshes if not mesh.empty), None)
    if mesh is None or AxisType.Manual in mesh.axis_types:
        return None
    parts = nnx.iter_graph(model)
    by_compiler = not all(getattr(part, "runs_in_shard_map", True) for _, part in parts)
    for array, inner in arrays:
        leading = jax.typeof(array).sharding.spec[: array.ndim - inner]
        if any(leading):
            spec = PartitionSpec(*[None] * (len(batch) - len(leading)), *leading)
            return Division(mesh, sum(map(_as_tuple, leading), ()), spec, by_compiler)
    axes = (_ROWS,) if batch and _ROWS in mesh.axis_names else ()
    return Division(mesh, axes, PartitionSpec(), by_compiler)


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return axes if isinstance(axes, tuple) else (axes,) if axes else ()
