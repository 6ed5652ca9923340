"""The protocol of a distribution over one event."""

from abc import abstractmethod
from typing import Any

import jax
from flax import nnx

from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape


class Distribution(Outlined, nnx.Module):
    """A distribution with a density over one event, without batch axes. The base of a `Flow`.

    A subclass sets `event_shape` and `context_shape`, which is `None` for a distribution without
    a context. A subclass writes `log_prob` and `sample`.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> class Exponential(afflow.Distribution):
        ...     event_shape, context_shape = (2,), None
        ...     def log_prob(self, x, context=None):
        ...         return jnp.where(x < 0, -jnp.inf, -x).sum()
        ...     def sample(self, key, context=None):
        ...         return jax.random.exponential(key, self.event_shape)
        >>> flow = afflow.Flow(Exponential(), afflow.Reverse(2))
        >>> flow.log_prob(jnp.array([1.0, 2.0])).item()
        -3.0
    """

    event_shape: Shape
    context_shape: Shape | None
    has_units: Any = False  # whether the distribution has a location and a scale

    @abstractmethod
    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the log-density (scalar, nats) of one event."""

    @abstractmethod
    def sample(self, key: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Draw one event."""
