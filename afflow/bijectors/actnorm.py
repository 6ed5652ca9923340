"""Activation normalisation: a scale and shift a channel, set by the first data."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.numerics import total
from afflow._tools.positive import positive, positive_inverse
from afflow._tools.shapes import Shape, checked_shape
from afflow.bijectors.walking import Model, change_layers
from afflow.core.bijector import Bijector, of_one_event


class ActNorm(Bijector):
    r"""A trainable scale and shift of each channel, the last axis of an event.

    $$y = \mu + \sigma \odot x, \qquad \log|\det J| = \sum \log\sigma,$$

    the sum over all elements: over a vector's coordinates, or a channel's pixels. It
    starts as the identity; `initialize_actnorm` sets it by data.
    Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.1.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> data = jnp.array([[0.0, 10.0], [2.0, 30.0]])
        >>> layer = afflow.bijectors.initialize_actnorm(afflow.bijectors.ActNorm(2), data)
        >>> layer.inverse(data[1]).round(5).tolist()
        [1.0, 1.0]
    """

    is_elementwise = True

    @property
    def has_units(self) -> bool:
        """Whether it has been set by data."""
        return bool((self.mu[...] != 0).any() | (self.s[...] != 0).any())

    def __init__(self, event_shape: int | Shape):
        self.event_shape = checked_shape("event_shape", event_shape)
        self.context_shape = None
        self.mu = nnx.Param(jnp.zeros(self.event_shape[-1]))
        self.s = nnx.Param(jnp.zeros(self.event_shape[-1]))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        mu, sigma = self._parameters()
        return mu.astype(x.dtype) + sigma.astype(x.dtype) * x, total(jnp.log(sigma))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        mu, sigma = self._parameters()
        return (y - mu.astype(y.dtype)) / sigma.astype(y.dtype), -total(jnp.log(sigma))

    def _parameters(self):
        mu, sigma = self.mu[...], positive(self.s[...])
        return jnp.broadcast_to(mu, self.event_shape), jnp.broadcast_to(sigma, self.event_shape)


def initialize_actnorm(model: Model, x: jax.Array, context: jax.Array | None = None) -> Model:
    """Return the flow or bijector with each `ActNorm` set by the data that reaches it.

    Going from data to noise, each layer's output then has mean 0 and deviation 1 in every
    channel over the rows of `x`. Call it once, before training.

    Args:
        model: the flow or bijector; it is not changed.
        x: data `(N, *event_shape)`; a few hundred rows are enough.
        context: `(N, *context_shape)`, or one for all rows, for a conditional flow.

    Raises:
        ValueError: for `x` or a context of another shape, a channel whose deviation is not
            between 0.001 and 1000, or an `ActNorm` inside a module that does not override `walk`.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.bijectors.ActNorm(2))
        >>> x = 3 + 0.1 * jax.random.normal(jax.random.key(0), (100, 2))
        >>> flow = afflow.bijectors.initialize_actnorm(flow, x)
        >>> flow.bijector.mu[...].round().tolist()
        [3.0, 3.0]
    """
    return change_layers(model, ActNorm, _normalize, x, context)


def _normalize(layer: ActNorm, batch: jax.Array, *, forward: bool) -> None:
    rows = tuple(range(batch.ndim - 1))
    mu, sigma = batch.mean(rows), batch.std(rows)
    if forward:
        mu, sigma = -mu / sigma, 1 / sigma
    s = positive_inverse(sigma)
    bad = np.flatnonzero(~np.isfinite(mu + s))
    if len(bad):
        raise ValueError(
            f"Expected data with deviations between 0.001 and 1000 in every channel that "
            f"reaches ActNorm, got others in channels {bad.tolist()}: standardise the data."
        )
    layer.mu = nnx.Param(mu.astype(layer.mu.dtype))
    layer.s = nnx.Param(s.astype(layer.s.dtype))
