"""Depth upscaling: a model of the high bits of an image, then a model of its low bits."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arrays import to_device
from afflow._tools.calls import check_ending, make_typed
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_size


class DepthUpscaled(Outlined, nnx.Module):
    r"""A model of events of whole numbers that draws the high bits before all low bits.

    $$p(x) = p_{high}(h)\; p_{low}(l \mid c), \qquad x = 2^b h + l, \quad 0 \le l < 2^b, \qquad
    c = \frac{2 h}{n / 2^b - 1} - 1.$$

    The context $c$ of the low bits is the event of high bits, scaled to between -1 and 1. It has
    the shape that `low` expects: a vector, or an image for a `Subscale` network. A context of the
    event goes to `high` alone.

    Menick and Kalchbrenner 2019, arXiv:1812.01608.

    Args:
        high: a model of events of `num_levels / 2**low_bits` levels.
        low: a model of events of `2**low_bits` levels, with a context of as many values as an
            event.
        num_levels: the number of levels `n`, a multiple of `2**low_bits` and larger.
        low_bits: the number of low bits `b`.

    Raises:
        ValueError: for numbers out of range, or shapes that do not fit. The methods raise it for
            inputs of the wrong shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> sizes = {"factor": 2, "width": 8, "num_layers": 1, "num_heads": 2, "rngs": nnx.Rngs(0)}
        >>> four, two = afflow.conditionals.Categorical(4), afflow.conditionals.Categorical(2)
        >>> high = afflow.zoo.subscale((4, 4), conditional=four, **sizes)
        >>> low = afflow.zoo.subscale((4, 4), conditional=two, context_dim=(4, 4, 1), **sizes)
        >>> model = afflow.models.DepthUpscaled(high, low, num_levels=8, low_bits=1)
        >>> x = model.sample(jax.random.key(0), 2)
        >>> x.shape, model.log_prob(x).shape
        ((2, 4, 4), (2,))
    """

    def __init__(self, high: Any, low: Any, num_levels: int = 256, low_bits: int = 5):
        check_size("low_bits", low_bits)
        self.low_levels = 2**low_bits
        check_size("num_levels", num_levels, least=2 * self.low_levels)
        if num_levels % self.low_levels:
            raise ValueError(
                f"Expected a multiple of {self.low_levels} as num_levels, got {num_levels}."
            )
        if low.event_shape != high.event_shape:
            raise ValueError(f"Expected low.event_shape {high.event_shape}, got {low.event_shape}.")
        size = math.prod(high.event_shape)
        if low.context_shape is None or math.prod(low.context_shape) != size:
            raise ValueError(
                f"Expected a low.context_shape with {size} elements, got {low.context_shape}."
            )
        self.high, self.low = high, low
        self.num_levels, self.low_bits = num_levels, low_bits
        self.event_shape, self.context_shape = high.event_shape, high.context_shape
        self.learning_rate = getattr(high, "learning_rate", 1e-3)

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-probability of events of whole numbers: `(...)` in nats.

        Args:
            x: events `(..., *event_shape)`, from 0 to `num_levels - 1`.
            context: `(..., *context_shape)`.
            chunk: the number of events to compute at a time, to save memory; by default all.
        """
        high, low = self._cut(x)
        first = self.high.log_prob(high, context, chunk=chunk)
        return first + self.low.log_prob(low, self._scale(high), chunk=chunk)

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return `log_prob` with the noise of training, drawn with `key`."""
        (high, low), (high_key, low_key) = self._cut(x), jax.random.split(make_typed(key))
        first = self.high.training_log_prob(high_key, high, context)
        return first + self.low.training_log_prob(low_key, low, self._scale(high))

    def without_noise(self) -> "DepthUpscaled":
        """Return the model whose `training_log_prob` draws no noise, for validation."""
        parts = self.high.without_noise(), self.low.without_noise()
        return DepthUpscaled(*parts, self.num_levels, self.low_bits)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        temperature: float = 1.0,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw samples `(*shape, *context_batch, *event_shape)`, exact at temperature 1."""
        high_key, low_key = jax.random.split(make_typed(key))
        options = {"temperature": temperature, "chunk": chunk}
        high = self.high.sample(high_key, shape, context, **options)
        low = self.low.sample(low_key, (), self._scale(high), **options)
        return self.low_levels * high + low

    def _cut(self, x):
        """Return the high and the low bits of events."""
        x = check_ending("x", to_device("x", x), self.event_shape)
        parts = x // self.low_levels, x % self.low_levels
        return [jnp.where(jnp.isinf(x), x, part) for part in parts]

    def _scale(self, high):
        """Return the context of the low bits, from the high bits."""
        leading = high.shape[: high.ndim - len(self.event_shape)]
        last = self.num_levels // self.low_levels - 1
        # Events outside of the support have a finite context, so that their density is zero.
        scaled = 2 * jnp.clip(jnp.asarray(high, float), 0, last) / last - 1
        return scaled.reshape(*leading, *self.low.context_shape)
