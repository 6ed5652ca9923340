"""A density model whose events have another shape, such as images."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arrays import to_device
from afflow._tools.calls import check_ending
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_shape


class Reshaped(Outlined, nnx.Module):
    """A density model of events of another shape, with the same elements in the same order.

    A model of images `(H, W)` or `(H, W, C)` is a model of the pixels in raster order, seen in the
    shape of the image. The methods are the methods of the model.

    Args:
        model: an `AutoregressiveModel`, or another model with equal arguments of `log_prob` and
            `sample`.
        event_shape: the shape of the events. Its first axes are the tokens of the model.

    Raises:
        ValueError: if the shape has another number of elements, or no axes that are the tokens.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> pixels = afflow.nade(6, hidden=4, rngs=nnx.Rngs(0))
        >>> model = afflow.models.Reshaped(pixels, (2, 3))
        >>> x = model.sample(jax.random.key(0), 5)
        >>> x.shape, model.log_prob(x).shape, model.log_conditionals(x).shape
        ((5, 2, 3), (5,), (5, 2, 3))
    """

    def __init__(self, model: Any, event_shape: Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        length, sizes = model.event_shape[0], self.event_shape
        axes = [k for k in range(1, len(sizes) + 1) if math.prod(sizes[:k]) == length]
        if math.prod(sizes) != math.prod(model.event_shape) or not axes:
            raise ValueError(
                f"Expected an event_shape with {math.prod(model.event_shape)} elements, whose "
                f"first axes have {length} elements, got {sizes}."
            )
        self.model, self.context_shape = model, model.context_shape
        self.token_axes = sizes[: axes[-1]]
        self.learning_rate = getattr(model, "learning_rate", 1e-3)

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-probability, or log-density, of events: `(...)` in nats."""
        return self.model.log_prob(self._flat(x), context, chunk=chunk)

    def log_conditionals(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the log-probability of every token given the tokens before, `(..., *tokens)`."""
        terms = self.model.log_conditionals(self._flat(x), context)
        return terms.reshape(*terms.shape[:-1], *self.token_axes)

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return `log_prob` with the noise of training, drawn with `key`."""
        return self.model.training_log_prob(key, self._flat(x), context)

    def without_noise(self) -> "Reshaped":
        """Return the model whose `training_log_prob` draws no noise, for validation."""
        return Reshaped(self.model.without_noise(), self.event_shape)

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
        options = {"temperature": temperature, "chunk": chunk}
        return self._shaped(self.model.sample(key, shape, context, **options))

    def greedy(self, context: jax.Array | None = None) -> jax.Array:
        """Return events whose every token is the mode, `(*context_batch, *event_shape)`."""
        return self._shaped(self.model.greedy(context))

    def complete(
        self,
        x: jax.Array,
        observed: jax.Array,
        key: jax.Array | None = None,
        context: jax.Array | None = None,
        *,
        temperature: float = 1.0,
        width: int | None = None,
    ) -> jax.Array:
        """Draw the tokens of `x` that are not observed, see `AutoregressiveModel.complete`.

        Args:
            x: events `(..., *event_shape)`; values that are not observed are ignored.
            observed: booleans `(..., *tokens)`, one for each token.
            key: a PRNG key. Without a key, every token is the mode of its conditional.
            context: `(..., *context_shape)`.
            temperature: as in `sample`.
            width: return the most probable completion that a beam search of this width finds.

        Raises:
            ValueError: if an observed token comes after an unobserved one in the model's order.
        """
        given = check_ending("observed", jnp.asarray(observed), self.token_axes)
        given = given.reshape(*given.shape[: given.ndim - len(self.token_axes)], -1)
        options = {"temperature": temperature, "width": width}
        return self._shaped(self.model.complete(self._flat(x), given, key, context, **options))

    def _flat(self, x):
        x = check_ending("x", to_device("x", x), self.event_shape)
        return x.reshape(*x.shape[: x.ndim - len(self.event_shape)], *self.model.event_shape)

    def _shaped(self, x):
        leading = x.shape[: x.ndim - len(self.model.event_shape)]
        return x.reshape(*leading, *self.event_shape)
