"""Base distributions of one event, and the flow: a base seen through a bijector."""

import math
from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow.bijector import (
    Bijector,
    Shape,
    checked_shape,
    common_context_shape,
    of_one_event,
)
from afflow.calls import call, floating, per_event
from afflow.elementwise import Constant, checked_ends
from afflow.outline import Outlined
from afflow.table import table_of


class Distribution(Outlined, nnx.Module):
    """A density over one event, without batch axes; the base of a `Flow`.

    A subclass sets `event_shape` and `context_shape` (`None`: takes no context).

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
    has_units = False  # whether a class has a location and a scale of its own

    @abstractmethod
    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the log-density (scalar, nats) of one event."""

    @abstractmethod
    def sample(self, key: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Draw one event."""


class Normal(Distribution):
    r"""The standard normal: $\log p(x) = -\tfrac12 \sum_i (x_i^2 + \log 2\pi)$.

    Coordinates so far out that a gradient through a flow would overflow (beyond 1e15 in
    float32) get a gradient of zero.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.Normal(2).log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """

    def __init__(self, event_shape: int | Shape):
        self.event_shape = checked_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def log_prob(self, x, context=None):
        return jnp.sum(self.log_probs(x))

    def log_probs(self, x: jax.Array) -> jax.Array:
        """Return the log-density of each coordinate, `event_shape`: they are independent."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        far = jnp.abs(x) > float(jnp.finfo(x.dtype).max) ** 0.4
        x = jnp.where(far, jax.lax.stop_gradient(x), x)
        return -0.5 * (jnp.square(x) + math.log(2 * math.pi))

    def sample(self, key, context=None):
        return jax.random.normal(key, self.event_shape)


class Uniform(Distribution):
    r"""Uniform on a box: $\log p(x) = -\sum_i \log(b - a)$ inside, $-\infty$ outside.

    Args:
        event_shape: the shape of an event, or the length of a vector.
        low: lower bounds $a$, of the shape of an event or one for all coordinates.
        high: upper bounds $b > a$.

    Raises:
        ValueError: unless `low < high` everywhere, both finite, in shapes that fit.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> box = afflow.Uniform(2, 0.0, 2.0)
        >>> round(box.log_prob(jnp.ones(2)).item(), 4), box.log_prob(jnp.full(2, 3.0)).item()
        (-1.3863, -inf)
    """

    def __init__(self, event_shape: int | Shape, low: ArrayLike = 0.0, high: ArrayLike = 1.0):
        self.event_shape = checked_shape("event_shape", event_shape)
        self.context_shape = None
        if any(np.shape(end) not in ((), self.event_shape) for end in (low, high)):
            raise ValueError(f"Expected low and high {self.event_shape}, got {low} and {high}.")
        low, high = checked_ends(low, high)
        self.low = Constant(jnp.broadcast_to(low, self.event_shape))
        self.high = Constant(jnp.broadcast_to(high, self.event_shape))

    @of_one_event
    def log_prob(self, x, context=None):
        return jnp.sum(self.log_probs(x))

    def log_probs(self, x: jax.Array) -> jax.Array:
        """Return the log-density of each coordinate, `event_shape`: they are independent."""
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        low, high = self.low[...].astype(x.dtype), self.high[...].astype(x.dtype)
        inside = 0 * x - jnp.log(high - low)  # 0 * x keeps NaN
        outside = (x < low) | (x > high)
        return jnp.where(outside, -jnp.inf, inside)

    def sample(self, key, context=None):
        low, high = self.low[...], self.high[...]
        return jax.random.uniform(key, self.event_shape, minval=low, maxval=high)


class Flow(Outlined, nnx.Module):
    r"""A base distribution seen through a bijector: the object that users call.

    $$\log p(x \mid h) = \log p_0(f^{-1}(x; h)) + \log|\det J_{f^{-1}}(x; h)|.$$

    The methods take any leading batch axes and are compiled. Log-densities are in nats.

    Args:
        base: the distribution of the noise.
        bijector: the map from noise to data.

    Raises:
        ValueError: if the event or context shapes of the two disagree; in the methods, if
            inputs have another shape than expected, or a context is missing or not wanted.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> x = flow.sample(jax.random.key(0), 100)
        >>> x.shape, flow.log_prob(x).shape
        ((100, 2), (100,))
    """

    def __init__(self, base: Distribution, bijector: Bijector):
        if not (isinstance(base, Distribution) and isinstance(bijector, Bijector)):
            raise ValueError(
                f"Expected a Distribution and a Bijector in this order, got "
                f"{type(base).__name__} and {type(bijector).__name__}."
            )
        if base.event_shape != bijector.event_shape:
            raise ValueError(
                f"Expected base and bijector with one event_shape, got {base.event_shape} "
                f"and {bijector.event_shape}."
            )
        self.base = base
        self.bijector = bijector
        self.event_shape = bijector.event_shape
        self.context_shape = common_context_shape(base.context_shape, bijector.context_shape)

    def embed(self, contexts: jax.Array) -> tuple["Flow", jax.Array]:
        """Return the flow behind its embedding network, and the contexts seen through it.

        A base that reads the context keeps the network where it is.

        Args:
            contexts: `(..., *context_shape)`.
        """
        if self.base.context_shape is not None:
            return self, contexts
        bijector, contexts = self.bijector.embed(contexts)
        return Flow(self.base, bijector), contexts

    @property
    def is_stateful(self) -> bool:
        """Whether it is behind an embedding network with statistics or randomness."""
        return self.base.context_shape is None and getattr(self.bijector, "is_stateful", False)

    def embed_to_train(self, contexts: jax.Array) -> tuple["Flow", jax.Array]:
        """Return the flow behind a network in training mode, if it has one that differs there.

        Args:
            contexts: a minibatch `(B, *context_shape)`.
        """
        if not self.is_stateful:
            return self, contexts
        bijector: Any = self.bijector
        bijector, contexts = bijector.embed_to_train(contexts)
        return Flow(self.base, bijector), contexts

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-density of `x` `(..., *event_shape)` given `context`, `(...)`.

        The leading axes of `x` and of `context` `(..., *context_shape)` broadcast. An event
        with an infinite coordinate has density zero, one with a NaN the density NaN.

        Args:
            x: events.
            context: contexts.
            chunk: how many events to work on at a time, for less memory; by default all.
        """
        if table := table_of(self):
            return table.enter(self).log_prob(table.encode(x), context, chunk=chunk)
        x = floating("x", x, self.event_shape)
        return call(_log_prob, self, (x,), context, chunk=chunk)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw samples `(*shape, *context_batch, *event_shape)`.

        Args:
            key: a PRNG key.
            shape: how many samples to draw, for each leading index of `context`.
            context: `(*context_batch, *context_shape)`.
            chunk: how many samples to draw at a time, for less memory; by default all.
        """
        if table := table_of(self):
            return table.decode(table.enter(self).sample(key, shape, context, chunk=chunk))
        return call(_sample, self, context=context, key=key, shape=shape, chunk=chunk)

    def sample_and_log_prob(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        chunk: int | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Draw samples as `sample` does, with their log-densities from the same sweep."""
        if table := table_of(self):
            x, log_prob = table.enter(self).sample_and_log_prob(key, shape, context, chunk=chunk)
            return table.decode(x), log_prob
        return call(_sample_and_log_prob, self, context=context, key=key, shape=shape, chunk=chunk)


@per_event
def _log_prob(flow, item, context):
    (x,) = item
    infinite = jnp.isinf(x).any() & ~jnp.isnan(x).any()
    x = jnp.where(infinite, jnp.zeros_like(x), x)
    z, log_det = flow.bijector.inverse_and_log_det(x, context)
    log_prob = flow.base.log_prob(z, context) + log_det
    return jnp.where(infinite & ~jnp.isnan(log_prob), -jnp.inf, log_prob)


@per_event
def _sample(flow, item, context):
    (key,) = item
    return flow.bijector.forward(flow.base.sample(key, context), context)


@per_event
def _sample_and_log_prob(flow, item, context):
    (key,) = item
    z = flow.base.sample(key, context)
    x, log_det = flow.bijector.forward_and_log_det(z, context)
    return x, flow.base.log_prob(z, context) - log_det
