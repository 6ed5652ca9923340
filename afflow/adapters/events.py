"""Calls of bijectors and flows on batches, and checks that adapters share."""

from typing import Any

import jax
from flax import nnx

from afflow._tools.arguments import check_instance
from afflow._tools.calls import call, check_context, check_floating, per_event
from afflow._tools.shapes import Shape
from afflow.core.bijector import Bijector
from afflow.core.table import get_table
from afflow.distributions.mixtures import ClassConditional, Mixture
from afflow.models.flow import Flow

_NOT_REPARAMETERIZED = (ClassConditional, Mixture)


def run_forward(
    bijector: Bijector, x: Any, context: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Map events `(..., *event_shape)` from noise to data. Return log-determinants `(...)` too."""
    x = check_floating("x", x, bijector.event_shape)
    return call(_run_forward, bijector, (x,), context)


def run_inverse(
    bijector: Bijector, y: Any, context: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Map events `(..., *event_shape)` from data to noise. Return log-determinants `(...)` too."""
    y = check_floating("y", y, bijector.event_shape)
    return call(_run_inverse, bijector, (y,), context)


@per_event
def _run_forward(bijector, item, context):
    return bijector.forward_and_log_det(*item, context)


@per_event
def _run_inverse(bijector, item, context):
    return bijector.inverse_and_log_det(*item, context)


def check_flow(flow: Flow, context: Any) -> jax.Array | None:
    """Return the context as an array.

    Raises:
        ValueError: for anything but a flow over arrays, or for a context that does not fit.
    """
    check_instance("flow", flow, Flow)
    if get_table(flow):
        raise ValueError("Expected a flow over arrays, got a flow over tables.")
    return check_context(flow, context)


def check_part(part: Flow | Bijector, context: Any) -> jax.Array | None:
    """Return the context of a flow or of a bijector as an array.

    Raises:
        ValueError: for another kind of part, a flow over tables, or a context that does not fit.
    """
    check_instance("part", part, (Flow, Bijector))
    return check_flow(part, context) if isinstance(part, Flow) else check_context(part, context)


def find_batch_shape(model: Bijector | Flow, context: jax.Array | None) -> Shape:
    """Return the leading axes of the context."""
    return () if context is None else context.shape[: context.ndim - len(model.context_shape or ())]


def has_derivatives(flow: Flow) -> bool:
    """Return whether samples have derivatives: not for a base that draws a component at random."""
    parts = (part for _, part in nnx.iter_modules(flow.base))
    return not any(isinstance(part, _NOT_REPARAMETERIZED) for part in parts)
