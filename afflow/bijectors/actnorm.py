"""Activation normalisation: one scale and one shift per channel, initialised from data."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.numerics import total
from afflow._tools.positive import positive, positive_inverse
from afflow._tools.shapes import Shape, check_shape
from afflow.bijectors.walking import Model, change_layers
from afflow.core.bijector import Bijector, of_one_event


class ActNorm(Bijector):
    r"""A trainable scale and shift for each channel. Channels are the last axis of an event.

    $$y = \mu + \sigma \odot x, \qquad \log|\det J| = \sum \log\sigma,$$

    with the sum over all elements of the event: an image counts each channel once per pixel. The
    layer starts as the identity. `initialize_actnorm` sets the scale and shift from data.
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
        """Whether the layer differs from the identity, as after `initialize_actnorm`."""
        return bool((self.mu[...] != 0).any() | (self.s[...] != 0).any())

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
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
    """Return a copy of a flow or bijector with every `ActNorm` initialised from data.

    The data runs from data to noise. Each `ActNorm` is set from the batch that reaches the layer.
    Its output for the rows of `x` then has mean 0 and standard deviation 1 in every channel. Call
    the function once, before training.

    Args:
        model: the flow or bijector, which is not changed.
        x: data `(N, *event_shape)`; a few hundred rows are enough.
        context: for a conditional flow, `(N, *context_shape)`, or one context for all rows.

    Raises:
        ValueError: for `x` or a context of another shape, a channel whose standard deviation is
            not between 0.001 and 1000, or an `ActNorm` inside a module that does not override
            `walk`.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.bijectors.ActNorm(2))
        >>> x = 3 + 0.1 * jax.random.normal(jax.random.key(0), (100, 2))
        >>> flow = afflow.bijectors.initialize_actnorm(flow, x)
        >>> flow.bijector.mu[...].round().tolist()
        [3.0, 3.0]
    """
    return change_layers(model, ActNorm, _normalize, x, context)


def _normalize(layer: ActNorm, batch: jax.Array, context: Any, *, forward: bool) -> None:
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
