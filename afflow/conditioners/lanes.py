"""A function of one event evaluated on a tile of events, with one array per entry of the event.

A GPU kernel written in Pallas holds arrays in registers and cannot index into them. A
univariate works on a short vector of parameters. Here every entry of that vector becomes
an array over the events of a tile: a *lane*. Slices and stacks of the vector then only
rename lanes, and elementwise arithmetic is the only operation left.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from afflow._tools.programs import find_operations_in

Lanes = np.ndarray
"""An object array with the shape of one event. Its entries are arrays over a tile of events."""

# Both lists hold operations that univariates use and that Pallas can lower.
_ELEMENTWISE = frozenset(
    """abs add and clamp convert_element_type copy cos cosh div eq exp expm1 floor ge gt
    integer_pow is_finite le log log1p logistic lt max min mul ne neg not or pow rsqrt select_n
    sign sin sinh sqrt square stop_gradient sub tan tanh xor""".split()
)
_RENAMING: dict[str, Callable] = {
    "broadcast_in_dim": lambda p, a: _broadcast(a, p["shape"], p["broadcast_dimensions"]),
    "concatenate": lambda p, *parts: np.concatenate(parts, p["dimension"]),
    "reshard": lambda p, a: a,  # moves an array within a mesh
    "reshape": lambda p, a: a.reshape(p["new_sizes"]),
    "rev": lambda p, a: np.flip(a, p["dimensions"]),
    "slice": lambda p, a: a[tuple(map(slice, p["start_indices"], p["limit_indices"]))],
    "squeeze": lambda p, a: np.squeeze(a, p["dimensions"]),
    "transpose": lambda p, a: np.transpose(a, p["permutation"]),
}
_FOLDS = {"reduce_max": jnp.maximum, "reduce_min": jnp.minimum, "reduce_sum": jnp.add}
_CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
}


def is_tileable(f: Callable, *args: Any) -> bool:
    """Return whether every operation of `f`, on arguments like `args`, has a rule here."""
    closed = jax.make_jaxpr(f)(*args)
    known = _ELEMENTWISE | {"iota", *_RENAMING, *_FOLDS, *_OTHERS, *_CALLS}
    return not closed.consts and known.issuperset(find_operations_in(closed))


def is_elementwise(f: Callable) -> bool:
    """Return whether `f`, a function of one array such as an activation, acts elementwise."""
    closed = jax.make_jaxpr(f)(jnp.zeros(2, jnp.float32))
    known = _ELEMENTWISE | {"broadcast_in_dim", *_CALLS}
    return not closed.consts and known.issuperset(find_operations_in(closed))


def on_tile(f: Callable, *args: Any) -> Any:
    """Evaluate `f`, a function of one event, on a tile of events.

    Args:
        f: maps pytrees of arrays to a pytree of arrays.
        *args: the arguments of `f`, with `Lanes` in place of arrays.

    Returns:
        The result of `f`, with `Lanes` in place of arrays.
    """
    leaves, structure = jax.tree.flatten(args)
    avals = [jax.ShapeDtypeStruct(lanes.shape, lanes.flat[0].dtype) for lanes in leaves]
    closed, out = jax.make_jaxpr(f, return_shape=True)(*jax.tree.unflatten(structure, avals))
    results = _evaluate(closed.jaxpr, leaves[0].flat[0].shape, leaves)
    return jax.tree.unflatten(jax.tree.structure(out), results)


def as_lanes(arrays: list[Any], shape: tuple[int, ...]) -> Lanes:
    """Return the object array of `shape` that holds `arrays` in order."""
    lanes = np.empty(len(arrays), object)
    for i, array in enumerate(arrays):
        lanes[i] = array
    return lanes.reshape(shape)


def _get_called(eqn: Any) -> Any:
    inner = eqn.params[_CALLS[eqn.primitive.name]]
    return getattr(inner, "jaxpr", inner)


def _evaluate(jaxpr: Any, tile: tuple[int, ...], args: list[Lanes]) -> list[Lanes]:
    env: dict[Any, Lanes] = dict(zip(jaxpr.invars, args, strict=True))

    def read(var: Any) -> Lanes:
        if not isinstance(var, Literal):
            return env[var]
        aval: Any = var.aval
        return _make_constant(var.val, aval.dtype, tile)

    for eqn in jaxpr.eqns:
        env.update(zip(eqn.outvars, _apply(eqn, tile, list(map(read, eqn.invars))), strict=True))
    return [read(var) for var in jaxpr.outvars]


def _apply(eqn: Any, tile: tuple[int, ...], args: list[Lanes]) -> list[Lanes]:
    name, out = eqn.primitive.name, eqn.outvars[0].aval
    if name in _CALLS:
        return _evaluate(_get_called(eqn), tile, args)
    if name == "iota":
        axis = eqn.params["dimension"]
        along = np.arange(out.shape[axis]).reshape(
            [-1 if i == axis else 1 for i in range(out.ndim)]
        )
        return [_make_constant(np.broadcast_to(along, out.shape), out.dtype, tile)]
    if name in _ELEMENTWISE:
        columns = zip(*(np.broadcast_to(a, out.shape).flat for a in args), strict=True)
        return [as_lanes([eqn.primitive.bind(*c, **eqn.params) for c in columns], out.shape)]
    if name in _FOLDS:
        return [_fold(_FOLDS[name], args[0], eqn.params["axes"], out.shape)]
    return (
        _OTHERS[name](eqn.params, *args)
        if name in _OTHERS
        else [_RENAMING[name](eqn.params, *args)]
    )


def _make_constant(value: Any, dtype: Any, tile: tuple[int, ...]) -> Lanes:
    value = np.asarray(value)
    return as_lanes([jnp.full(tile, v, dtype) for v in value.reshape(-1).tolist()], value.shape)


def _broadcast(a: Lanes, shape: tuple[int, ...], dimensions: tuple[int, ...]) -> Lanes:
    sizes = [1] * len(shape)
    for axis, size in zip(dimensions, a.shape, strict=True):
        sizes[axis] = size
    return np.broadcast_to(a.reshape(sizes), shape)


def _fold(f: Callable, a: Lanes, axes: tuple[int, ...], shape: tuple[int, ...]) -> Lanes:
    rest = [i for i in range(a.ndim) if i not in axes]
    rows = np.transpose(a, (*rest, *axes)).reshape(int(np.prod(shape)), -1)
    return as_lanes([reduce(f, row) for row in rows], shape)


def _split(params: Any, a: Lanes) -> list[Lanes]:
    return np.split(a, np.cumsum(params["sizes"])[:-1], params["axis"])


def _stack(params: Any, *parts: Lanes) -> list[Lanes]:
    return [np.stack(parts, params["axis"])]


def _unstack(params: Any, a: Lanes) -> list[Lanes]:
    axis = params["axis"]
    return [np.squeeze(part, axis) for part in np.split(a, a.shape[axis], axis)]


def _compute_dot(params: Any, a: Lanes, b: Lanes) -> list[Lanes]:
    """Return the inner product of two vectors, the only case that univariates and solvers need."""
    if a.ndim != 1 or b.ndim != 1:
        raise NotImplementedError(f"Expected vectors, got shapes {a.shape} and {b.shape}.")
    return [as_lanes([reduce(jnp.add, [x * y for x, y in zip(a, b, strict=True)])], ())]


_OTHERS: dict[str, Callable[..., list[Lanes]]] = {
    "dot_general": _compute_dot,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
}
