"""Truncated backpropagation through time: the state of a network goes on from window to window."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree

from afflow._tools.lowering import use_float32_products
from afflow.core.conditioner import Place
from afflow.training.stream import Stream


class Carried(nnx.Module):
    r"""A density model of windows that continue each other, for `fit`.

    Row `b` of a minibatch starts in the state in which row `b` of the minibatch before has ended.
    The state is a statistic, through which no gradient passes. At the beginning of an epoch it is
    the first state of the network.

    Werbos 1990 (backpropagation through time); Williams and Peng 1990 (truncated).

    Args:
        model: an `AutoregressiveModel` without order and context, whose cache has one size for all
            lengths.
        stream: the minibatches.

    Raises:
        ValueError: for another model.
    """

    def __init__(self, model: Any, stream: Stream):
        conditioner = getattr(model, "conditioner", None)
        if getattr(model, "order", None) or not getattr(conditioner, "is_endless", False):
            raise ValueError(
                f"Expected an AutoregressiveModel without order, whose network has a state of one "
                f"size, such as Recurrent or WaveNet, for consecutive windows; got {model!r}."
            )
        if model.context_shape is not None:
            raise ValueError(
                f"Expected a model without context for consecutive windows, got context_shape "
                f"{model.context_shape}."
            )
        self.model, self.num_steps = model, stream.num_steps
        self.steps = nnx.BatchStat(jnp.zeros(()))  # since the beginning of the epoch
        start, _ = self._start()
        self.rows = nnx.BatchStat(jnp.zeros((stream.first().size, len(start))))

    def log_prob(self, x: jax.Array, context: None = None) -> jax.Array:
        """Return the log-density of windows, each from the first state."""
        return self.model.log_prob(x)

    def training_log_prob(self, key: jax.Array, x: jax.Array, context: None = None) -> jax.Array:
        """Return the log-density of the next windows, and keep the state after them."""
        start, unflatten = self._start()
        rows = jnp.where(self.steps[...] == 0, start[None], self.rows[...])
        t = self.steps[...].astype(int) * x.shape[1]
        is_noisy = self.model.is_noisy

        def read(row, x, key):
            x_prev, cache = unflatten(row)
            terms, place = self.model.read(x, Place(x_prev, t, cache), key if is_noisy else None)
            return terms.sum(), ravel_pytree((place.x_prev, place.cache))[0]

        with use_float32_products():
            log_prob, rows = jax.vmap(read)(rows, x, jax.random.split(key, len(x)))
        self.rows[...] = jax.lax.stop_gradient(rows).astype(self.rows.dtype)
        self.steps[...] = (self.steps[...] + 1) % self.num_steps
        return log_prob

    def without_noise(self) -> "AnyLength":
        """Return the model for validation."""
        return AnyLength(self.model.without_noise())

    def _start(self):
        """Return the first state as a vector, and the function that unflattens such vectors."""
        place = self.model.conditioner.begin()
        return ravel_pytree((place.x_prev, place.cache))


class AnyLength(nnx.Module):
    """A model that scores events of any number of tokens, in nats per window.

    Args:
        model: an `AutoregressiveModel` whose weights know no length.
    """

    def __init__(self, model: Any):
        self.model = model

    def log_prob(self, x: jax.Array, context: None = None) -> jax.Array:
        """Return the log-density of events, scaled from their number of tokens to a window."""
        share = self.model.event_shape[0] / x.shape[1]
        return self.model.with_length(x.shape[1]).log_prob(x) * share


class Carrying:
    """The interface between `fit` and models of consecutive windows.

    Args:
        stream: consecutive minibatches.
    """

    def __init__(self, stream: Stream):
        self.stream = stream

    def enter(self, model: Any) -> Any:
        """Return the model that carries its state."""
        return Carried(model, self.stream)

    def leave(self, model: Any) -> Any:
        """Return the model without the state."""
        return model.model
