"""A walk over the layers of a flow with a batch of data, changing layers on the way."""

from collections.abc import Callable
from functools import singledispatch
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.calls import checked_context
from afflow.bijectors.compose import Chain, Repeat
from afflow.core.bijector import Bijector

Model = TypeVar("Model")
Layer = TypeVar("Layer", bound=Bijector)
Visit = Callable[[Bijector, jax.Array], Bijector]


@singledispatch
def walk(
    module: Any, y: jax.Array, context: jax.Array | None, visit: Visit
) -> tuple[Any, jax.Array]:
    """Return the module with its layers changed by `visit`, and the noise of the data.

    `visit(layer, y)` sees each layer, nearest to the data first, with the batch that
    reaches it, `(N, *event_shape)`, and returns the layer to go on with. The layers inside
    another module are visited if its type is registered with `walk.register`.
    """
    layer = visit(module, y)
    return layer, _noise(layer, y, context)


@walk.register
def _(chain: Chain, y, context, visit):
    layers = []
    for layer in reversed(chain.bijectors):
        layer, y = walk(layer, y, context, visit)
        layers.append(layer)
    return Chain(layers[::-1]), y


@walk.register
def _(repeat: Repeat, y, context, visit):
    layers = []
    for i in reversed(range(len(jax.tree.leaves(repeat.layers)[0]))):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], repeat.layers)
        layer, y = walk(layer, y, context, visit)
        layers.append(layer)
    changed = copied(repeat)
    changed.layers = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers[::-1])
    return changed, y


def copied(module: Any) -> Any:
    """Return the module in new variables."""
    return jax.tree.map(lambda leaf: leaf, module)


def change_layers(
    model: Model,
    kind: type[Layer],
    change: Callable[[Layer, jax.Array], Layer],
    x: jax.Array,
    context: jax.Array | None,
) -> Model:
    """Return a copy of the model, `change(layer, y)` in place of each layer of one kind.

    Raises:
        ValueError: if `x` is not `(N, *event_shape)`, the context is missing, not wanted or of
            another shape, or a layer is out of the walk's reach.
    """
    x, shape = jnp.asarray(x), cast(Any, model).event_shape
    if x.shape[1:] != shape or len(x) == 0:
        raise ValueError(f"Expected x.shape (N, {', '.join(map(str, shape))}), got {x.shape}.")
    context = checked_context(model, context)
    if context is not None:
        context = jnp.broadcast_to(context, (len(x), *cast(Any, model).context_shape))

    def visit(layer, y):
        if isinstance(layer, kind):
            return change(layer, y)
        if any(isinstance(module, kind) for _, module in nnx.iter_modules(layer)):
            raise ValueError(
                f"Expected every {kind.__name__} where walk finds it (register other "
                f"containers with walk.register), got one inside {type(layer).__name__}."
            )
        return layer

    return walk(copied(model), x, context, visit)[0]


@jax.jit
def _noise(layer, y, context):
    in_axes = (0, None if context is None else 0)
    return jax.vmap(layer.inverse, in_axes=in_axes)(y, context)
