"""The outermost call: leading axes, checks and compilation for a function of one event."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from afflow._tools.arrays import real_array, to_device
from afflow._tools.lowering import lower_for, use_float32_products
from afflow._tools.meshes import Division, find_division, placed
from afflow._tools.shapes import Shape, check_shape, check_size


def per_event(f: Callable) -> Callable:
    """Compile `f(model, item, context, *shared)`, mapped over items and their contexts.

    If the model has a method `embed`, its embedding network runs first. It runs once for each given
    context, before a context is repeated for several events.
    """

    def one(pair, model, context, shared):
        item, own = pair
        return f(model, item, context if own is None else own, *shared)

    @partial(jax.jit, static_argnums=(0, 1))
    def mapped(batch, chunk, model, events, key, context, *shared):
        def run(model, events, key, context, *shared):
            items = tuple(_flatten(event, len(model.event_shape), batch) for event in events)
            if key is not None:
                items += (jax.random.split(key, math.prod(batch)),)
            if context is not None and hasattr(model, "embed"):
                model, context = model.embed(context)
            own = None
            if context is not None and context.shape != model.context_shape:
                own, context = _flatten(context, len(model.context_shape), batch), None
            whole = model, context, shared
            out = map_over(one, (items, own), chunk, whole, division)
            return jax.tree.map(lambda a: a.reshape(batch + a.shape[1:]), out)

        arrays = [(event, len(model.event_shape)) for event in events]
        if context is not None:
            arrays.append((context, len(model.context_shape)))
        division = find_division(batch, arrays, model, (key, shared))
        args = model, events, key, context, *shared
        with use_float32_products():
            return division.run(run, *args) if division else run(*args)

    return mapped


def map_over(
    f: Callable, items: Any, chunk: int | None, whole: tuple = (), division: Division | None = None
) -> Any:
    """Map `f(item, *whole)` over items, all at once or at most `chunk` items at a time.

    The parts have equal sizes, so that one program computes all of them: the last item fills what
    the last part lacks. `division` divides each part over the devices of a mesh.
    """
    size, num_devices = len(jax.tree.leaves(items)[0]), division.num_parts if division else 1
    at_once = jax.vmap(f, in_axes=(0, *[None] * len(whole)))
    if not size or (chunk is None and num_devices == 1):
        return at_once(items, *whole)
    index = number_evenly(size, chunk or size, num_devices)
    if index.size > size:
        items = jax.tree.map(lambda a: a[index.ravel()], items)
    parts = jax.tree.map(lambda a: a.reshape(index.shape + a.shape[1:]), items)

    def run(parts, *whole):
        return jax.lax.map(lambda part: at_once(part, *whole), parts)

    out = division.map(run, parts, *whole) if division else run(parts, *whole)
    return jax.tree.map(lambda a: a.reshape(index.size, *a.shape[2:])[:size], out)


def number_evenly(size: int, at_once: int, num_parts: int = 1) -> np.ndarray:
    """Return the numbers `(N, B)` of `size` items, in rows of equal lengths of about `at_once`.

    `num_parts` divides the length of a row. The last number fills what the last row lacks.
    """
    num = -(-size // at_once)
    length = num_parts * -(-size // (num * num_parts))
    return np.minimum(np.arange(num * length), size - 1).reshape(num, length)


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

    An item is a tuple with one event from each of `events`, and a separate key if `key` is given.
    Leading axes are the axes before `model.event_shape`, or before `model.context_shape` for the
    context. They broadcast to `batch`. The results have the shape `(*shape, *batch, ...)`. With
    `chunk`, that many items are computed at a time, which bounds the memory.
    """
    if chunk is not None:
        check_size("chunk", chunk)
    context = check_context(model, context)
    key = key if key is None else make_typed(key)
    leading = [_find_leading(event, len(model.event_shape)) for event in events]
    if context is not None:
        leading.append(_find_leading(context, len(model.context_shape)))
    batch = check_shape("shape", shape, least=0) + _find_common(leading)
    with lower_for([*events, context, key]):
        if key is None or isinstance(key, Tracer) or any(leading):
            return f(batch, chunk, model, events, key, context, *shared)
        drawn = (round_up(math.prod(batch)),)
        return _take_first(f(drawn, chunk, model, events, key, context, *shared), batch=batch)


@partial(jax.jit, static_argnames="batch")
@placed
def _take_first(out, *, batch):
    """Return the first events of `out`, with the axes `batch` in place of the first axis."""
    size = math.prod(batch)
    return jax.tree.map(lambda a: a[:size].reshape(batch + a.shape[1:]), out)


def round_up(size: int) -> int:
    """Return the least number >= `size` with four leading binary digits and then zeros.

    The number is at most 12 % larger. A program is compiled for one number of samples; rounding
    lets one program serve similar numbers.
    """
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


# The kinds of raw keys by their shape.
_KINDS: dict[Shape, tuple[str, ...]] = {(2,): ("threefry2x32",), (4,): ("rbg", "unsafe_rbg")}


def make_typed(key: jax.Array) -> jax.Array:
    """Return a typed PRNG key from a typed or a raw key.

    The length of a raw key gives its kind. If two kinds have this length, the default kind of JAX
    goes first.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(key, jax.Array | np.ndarray):
        raise ValueError(f"Expected a key, jax.random.key(0) say, got {key!r}.")
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    kinds = _KINDS.get(key.shape, ())
    if key.dtype != np.uint32 or not kinds:
        raise ValueError(
            f"Expected a key, jax.random.key(0) say, got an array of {key.dtype} and shape "
            f"{key.shape}: keys come first, before shapes and contexts."
        )
    default = jax.config.jax_default_prng_impl  # pyright: ignore[reportAttributeAccessIssue]
    return jax.random.wrap_key_data(key, impl=default if default in kinds else kinds[0])


def check_floating(name: str, value: Any, shape: Shape) -> jax.Array:
    """Return `value` as a floating-point array that ends in `shape`.

    Raises:
        ValueError: for other types, or another shape.
    """
    value = to_device(name, value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"Expected floating-point {name}, got {value.dtype}: convert it by "
            f"astype(float), and before that add noise (dequantize) to discrete data, or encode "
            f"classes as one-hot vectors."
        )
    return check_ending(name, value, shape)


def check_booleans(name: str, value: Any) -> jax.Array:
    """Return `value` as an array of booleans, or raise `ValueError` for other types."""
    array = jnp.asarray(real_array(name, value))
    if array.dtype != bool:
        raise ValueError(f"Expected booleans as {name}, got {array.dtype} of shape {array.shape}.")
    return array


def check_ending(name: str, value: jax.Array, shape: Shape) -> jax.Array:
    """Return `value` if its shape ends in `shape`, or raise `ValueError`."""
    if value.ndim < len(shape) or value.shape[value.ndim - len(shape) :] != shape:
        mend = f": {name}[..., None] has one column" if shape == (1,) and value.ndim == 1 else ""
        raise ValueError(
            f"Expected {name}.shape (..., {_format_inner(shape)}), got {value.shape}{mend}."
        )
    return value


def check_context(model: Any, context: Any) -> jax.Array | None:
    """Return the context as a floating-point array.

    Raises:
        ValueError: for a context that is missing, not wanted or of another shape.
    """
    shape: Shape | None = model.context_shape
    if shape is None and context is not None:
        raise ValueError(
            f"Expected no context: this model is unconditional, got context.shape "
            f"{jnp.shape(context)}."
        )
    if shape is None:
        return None
    if context is None:
        raise ValueError(f"Expected context.shape (..., {_format_inner(shape)}), got no context.")
    return check_floating("context", context, shape)


def _find_common(leading: list[Shape]) -> Shape:
    """Return the shape that the leading axes of events and context broadcast to."""
    if len(leading) == 1:
        return leading[0]
    try:
        return tuple(map(int, jnp.broadcast_shapes(*leading)))
    except ValueError:
        raise ValueError(
            f"Expected leading axes of events and context that broadcast, got "
            f"{' and '.join(map(str, leading))}: as many contexts as events, or one."
        ) from None


def _find_leading(value, inner):
    return value.shape[: value.ndim - inner]


def _flatten(value, inner, batch):
    """Broadcast the axes before the last `inner` axes to `batch`, and merge them into one axis."""
    shape = value.shape[value.ndim - inner :]
    return jnp.broadcast_to(value, batch + shape).reshape((math.prod(batch), *shape))


def _format_inner(shape):
    return ", ".join(map(str, shape))
