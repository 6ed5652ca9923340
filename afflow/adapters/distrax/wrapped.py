"""Flows and bijectors as distributions and bijectors of distrax."""

from typing import Any, overload

import distrax
import jax

from afflow._tools.shapes import Shape
from afflow.adapters.events import check_part, find_batch_shape, run_forward, run_inverse
from afflow.core.bijector import Bijector
from afflow.models.flow import Flow


class BijectorInDistrax(distrax.Bijector):
    """A bijector as a bijector of distrax: a pytree with the arrays of the bijector as leaves.

    `to_distrax` builds it.
    """

    def __init__(self, bijector: Bijector, context: jax.Array | None):
        super().__init__(event_ndims_in=len(bijector.event_shape))
        self.bijector = bijector
        self.context = context

    def forward_and_log_det(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """Map events `(..., *event_shape)` to data. Return log-determinants `(...)` too."""
        return run_forward(self.bijector, x, self.context)

    def inverse_and_log_det(self, y: Any) -> tuple[jax.Array, jax.Array]:
        """Map events `(..., *event_shape)` to noise. Return log-determinants `(...)` too."""
        return run_inverse(self.bijector, y, self.context)


class FlowInDistrax(distrax.Distribution):
    r"""A flow as a distribution of distrax: $\log p(x \mid h)$ at the context $h$.

    The arrays of the flow and of the context are the leaves of a pytree. `to_distrax` builds it.
    """

    def __init__(self, flow: Flow, context: jax.Array | None):
        super().__init__()
        self.flow = flow
        self.context = context

    @property
    def event_shape(self) -> Shape:
        """The shape of an event."""
        return self.flow.event_shape

    @property
    def batch_shape(self) -> Shape:
        """The leading axes of the context."""
        return find_batch_shape(self.flow, self.context)

    def log_prob(self, value: Any) -> jax.Array:
        """Return the log-densities of events `(..., *event_shape)` in nats.

        The leading axes broadcast with `batch_shape`.
        """
        return self.flow.log_prob(value, self.context)

    def _sample_n(self, key: jax.Array, n: int) -> jax.Array:
        return self.flow.sample(key, n, self.context)

    def _sample_n_and_log_prob(self, key: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
        return self.flow.sample_and_log_prob(key, n, self.context)


@overload
def to_distrax(part: Flow, context: jax.Array | None = None) -> FlowInDistrax: ...


@overload
def to_distrax(part: Bijector, context: jax.Array | None = None) -> BijectorInDistrax: ...


def to_distrax(part, context=None):
    r"""Return a flow as a distribution of distrax, or a bijector as a bijector of distrax.

    Both take leading axes and are compiled. The leading axes of a context are the batch shape. The
    result stands where any part of distrax stands: in `distrax.Transformed`, `distrax.Chain` or
    `distrax.Independent`.

    Needs distrax (extra `distrax`).

    Args:
        part: the flow or the bijector.
        context: contexts $h$, `(*batch_shape, *context_shape)`, of a part with a context.

    Raises:
        ValueError: for another kind of part, a flow over tables, or a context that is missing, not
            wanted or of another shape.

    Example:
        >>> import afflow, distrax, jax, jax.numpy as jnp
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> exp = afflow.adapters.to_distrax(afflow.bijectors.Exp(2))
        >>> theirs = distrax.Transformed(afflow.adapters.to_distrax(flow), exp)
        >>> theirs.sample(seed=jax.random.key(0), sample_shape=(3,)).shape
        (3, 2)
        >>> round(theirs.log_prob(jnp.ones(2)).item(), 4)
        -1.8379
    """
    context = check_part(part, context)
    if isinstance(part, Flow):
        return FlowInDistrax(part, context)
    return BijectorInDistrax(part, context)
