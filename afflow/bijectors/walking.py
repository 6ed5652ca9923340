"""A run of data through a flow that changes layers on the way."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.calls import check_context, check_floating
from afflow._tools.modules import copy_module
from afflow.core.bijector import Bijector

Model = TypeVar("Model")
Layer = TypeVar("Layer", bound=Bijector)
Change = Callable[..., None]
"""`change(layer, batch, context, forward=...)` sets a layer by the batch that reaches it."""


def change_layers(
    model: Model, kind: type[Layer], change: Change, x: jax.Array, context: jax.Array | None
) -> Model:
    """Return a copy of a flow or bijector with all layers of class `kind` changed.

    The events `x` run from data to noise. Before a layer of this class runs,
    `change(layer, batch, context, forward=forward)` is called with the batch that reaches the
    layer. `forward` is true inside an `Inverse`, where the layer runs `forward`.

    Args:
        model: the flow or bijector, which is not changed.
        kind: the class of the layers to change.
        change: changes a layer in place.
        x: events `(N, *event_shape)`, with `N > 0`.
        context: `(N, *context_shape)`, or one context for all rows, or `None`.

    Raises:
        ValueError: if `x` is not `(N, *event_shape)`, if the context is missing, not wanted or of
            another shape, or if such a layer is inside a module that does not override `walk`.
    """
    shape = cast(Any, model).event_shape
    x = check_floating("x", x, ())
    if x.shape[1:] != shape or len(x) == 0:
        raise ValueError(f"Expected x.shape (N, {', '.join(map(str, shape))}), got {x.shape}.")
    context = check_context(model, context)
    if context is not None:
        context = jnp.broadcast_to(context, (len(x), *cast(Any, model).context_shape))

    def visit(layer, batch, context, *, forward):
        if isinstance(layer, kind):
            change(layer, batch, context, forward=forward)
        elif any(isinstance(module, kind) for _, module in nnx.iter_modules(layer)):
            raise ValueError(
                f"Expected every {kind.__name__} where Bijector.walk reaches it, got one inside "
                f"{type(layer).__name__}: override walk there."
            )

    changed: Any = copy_module(model)
    (changed if isinstance(model, Bijector) else changed.bijector).walk(x, context, visit)
    return changed
