"""A hand-written batch rule for functions of one event, with the batch on the last axis."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap


def batch_last(f: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a function of one event from `f(model, arrays)`, written for a batch on the last axis.

    The result takes and returns arrays without batch axes. Under `jax.vmap` it calls `f` once, with
    the batch moved to the last axis of every array. A serial loop then carries arrays of shape
    (units, batch); the usual rule would give (batch, units). If leaves of `model` are batched too,
    as in an ensemble, the usual rule applies.
    """

    @custom_vmap
    def one(model, arrays):
        out = f(model, jax.tree.map(lambda a: a[..., None], arrays))
        return jax.tree.map(lambda a: a[..., 0], out)

    @one.def_vmap
    def many(size, batched, model, arrays):
        def last(a, is_batched):
            moved = jnp.moveaxis(a, 0, -1) if is_batched else a[..., None]
            return jnp.broadcast_to(moved, (*moved.shape[:-1], size))

        if any(jax.tree.leaves(batched[0])):
            axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
            out = jax.vmap(one.fun, in_axes=axes)(model, arrays)
        else:
            out = f(model, jax.tree.map(last, arrays, batched[1]))
            out = jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), out)
        return out, jax.tree.map(lambda _: True, out)

    return one
