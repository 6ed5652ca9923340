"""The operations of a traced program."""

from collections.abc import Callable
from typing import Any

import jax


def find_operations(f: Callable, *args: Any) -> set[str]:
    """Return the names of the primitives in `f`, traced for `args`, and in all inner programs."""
    return find_operations_in(jax.make_jaxpr(f)(*args))


def find_operations_in(jaxpr: Any) -> set[str]:
    """Return the names of the primitives in a jaxpr and in all inner programs."""
    names, inner = set(), getattr(jaxpr, "jaxpr", jaxpr)
    for eqn in inner.eqns:
        names.add(eqn.primitive.name)
        programs = (p for p in jax.tree.leaves(eqn.params, is_leaf=_is_jaxpr) if _is_jaxpr(p))
        names = names.union(*map(find_operations_in, programs))
    return names


def _is_jaxpr(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")
