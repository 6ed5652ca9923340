"""The outermost call: leading axes, checks, and compilation around a function of one event."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from afflow._tools.arrays import real_array
from afflow._tools.lowering import float32_products, lowered_for
from afflow._tools.shapes import Shape, check_size, checked_shape


def per_event(f: Callable) -> Callable:
    """Compile `f(model, item, context, *shared)`, mapped over items and differing contexts.

    A model with a method `embed` runs its embedding network there: once for every context that
    is given, before contexts are repeated for the events that they belong to.
    """

    @partial(jax.jit, static_argnums=(0, 1))
    def mapped(batch, chunk, model, events, key, context, *shared):
        with float32_products():
            items = tuple(_flatten(event, len(model.event_shape), batch) for event in events)
            if key is not None:
                items += (jax.random.split(key, math.prod(batch)),)
            if context is not None and hasattr(model, "embed"):
                model, context = model.embed(context)
            if context is None or context.shape == model.context_shape:
                out = _over(lambda item: f(model, item, context, *shared), items, chunk)
            else:
                context = _flatten(context, len(model.context_shape), batch)
                out = _over(lambda pair: f(model, *pair, *shared), (items, context), chunk)
        return jax.tree.map(lambda a: a.reshape(batch + a.shape[1:]), out)

    return mapped


def _over(f: Callable, items: Any, chunk: int | None) -> Any:
    """Map over items, all at once or a chunk at a time."""
    if chunk is None:
        return jax.vmap(f)(items)
    return jax.lax.map(f, items, batch_size=chunk)


def call(
    f: Callable,
    model: Any,
    events: Sequence[jax.Array] = (),
    context: jax.Array | None = None,
    shared: tuple = (),
    *,
    key: jax.Array | None = None,
    shape: int | Shape = (),
    chunk: int | None = None,
) -> Any:
    """Call `f`, made by `per_event`, on all leading axes of events and context.

    An item is a tuple of one event of each of `events`, and a separate key if `key` is
    given. The results have the axes `(*shape, *batch)` in front, where the leading axes of
    `events`, before as many as an event has, and `context` `(..., *context_shape)` broadcast to
    `batch`. With `chunk`, as many items are worked on at a time, which bounds the memory.
    """
    if chunk is not None:
        check_size("chunk", chunk)
    context = checked_context(model, context)
    key = key if key is None else typed(key)
    leading = [_leading(event, len(model.event_shape)) for event in events]
    if context is not None:
        leading.append(_leading(context, len(model.context_shape)))
    batch = checked_shape("shape", shape, least=0) + _common(leading)
    with lowered_for([*events, context, key]):
        if key is None or isinstance(key, Tracer) or any(leading):
            return f(batch, chunk, model, events, key, context, *shared)
        drawn = (bucketed(math.prod(batch)),)
        return _first(batch, f(drawn, chunk, model, events, key, context, *shared))


@partial(jax.jit, static_argnums=0)
def _first(batch, out):
    """Return the first events of `out`, with the axes `batch` in place of one."""
    size = math.prod(batch)
    return jax.tree.map(lambda a: a[:size].reshape(batch + a.shape[1:]), out)


def bucketed(size: int) -> int:
    """Return the next number that has four binary digits and zeros, at most 12 % more.

    Programs are compiled for one number of samples. So one program serves similar numbers.
    """
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def typed(key: jax.Array) -> jax.Array:
    """Return a PRNG key of the new kind, from either kind; `ValueError` for anything else."""
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"Expected a key, jax.random.key(0) say, got {key!r}.")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if key.dtype != np.uint32 or key.ndim != 1:
        raise ValueError(
            f"Expected a key, jax.random.key(0) say, got an array of {key.dtype} and shape "
            f"{key.shape}: keys come first, before shapes and contexts."
        )
    return jax.random.wrap_key_data(key)


def floating(name: str, value: Any, shape: Shape) -> jax.Array:
    """Return `value` as a floating array that ends in `shape`, or raise `ValueError`."""
    value = jnp.asarray(real_array(name, value))
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"Expected floating-point {name}, got {value.dtype}: convert it, adding noise "
            f"(dequantize) to discrete data and one-hot for classes."
        )
    return ending(name, value, shape)


def ending(name: str, value: jax.Array, shape: Shape) -> jax.Array:
    """Return `value` if it ends in `shape`, or raise `ValueError`."""
    if value.ndim < len(shape) or value.shape[value.ndim - len(shape) :] != shape:
        mend = f": {name}[..., None] has one column" if shape == (1,) and value.ndim == 1 else ""
        raise ValueError(f"Expected {name}.shape (..., {_inner(shape)}), got {value.shape}{mend}.")
    return value


def checked_context(model: Any, context: Any) -> jax.Array | None:
    """Return the context as a floating array, or raise `ValueError` where it does not fit."""
    shape: Shape | None = model.context_shape
    if shape is None and context is not None:
        raise ValueError(
            f"Expected no context: this model is unconditional, got context.shape "
            f"{jnp.shape(context)}."
        )
    if shape is None:
        return None
    if context is None:
        raise ValueError(f"Expected context.shape (..., {_inner(shape)}), got no context.")
    return floating("context", context, shape)


def _common(leading: list[Shape]) -> Shape:
    """Return the shape to which the leading axes of events and context broadcast."""
    try:
        return tuple(map(int, jnp.broadcast_shapes(*leading)))
    except ValueError:
        raise ValueError(
            f"Expected leading axes of events and context that broadcast, got "
            f"{' and '.join(map(str, leading))}: as many contexts as events, or one."
        ) from None


def _leading(value, inner):
    return value.shape[: value.ndim - inner]


def _flatten(value, inner, batch):
    """Broadcast the axes in front of the last `inner` ones to `batch`, as one axis."""
    shape = value.shape[value.ndim - inner :]
    return jnp.broadcast_to(value, batch + shape).reshape((-1, *shape))


def _inner(shape):
    return ", ".join(map(str, shape))
