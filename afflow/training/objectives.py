"""Objectives of `fit`: functions from a model and rows of data to a loss for each row."""

from collections.abc import Callable
from typing import Any

import jax

Objective = Callable[[Any, jax.Array, jax.Array, jax.Array | None], jax.Array]


def maximum_likelihood(
    model: Any, key: jax.Array, x: jax.Array, context: jax.Array | None = None
) -> jax.Array:
    r"""Return the negative log-likelihood of each row, $-\log q(x_i \mid h_i)$, in nats.

    A model that trains on random orders or noise has a method `training_log_prob(key, x, context)`,
    which replaces `log_prob`.

    Args:
        model: has `log_prob(x, context)`, or `training_log_prob(key, x, context)`.
        key: a PRNG key for `training_log_prob`.
        x: data `(B, *event_shape)`.
        context: `(B, *context_shape)` for a conditional model.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Uniform(1, 0.0, 1.0), afflow.Reverse(1))
        >>> x = jax.numpy.full((3, 1), 0.5)
        >>> afflow.training.maximum_likelihood(flow, jax.random.key(0), x).tolist()
        [-0.0, -0.0, -0.0]
    """
    if hasattr(model, "training_log_prob"):
        return -model.training_log_prob(key, x, context)
    return -model.log_prob(x, context)


def observed_likelihood(
    model: Any, key: jax.Array, x: jax.Array, context: jax.Array | None = None
) -> jax.Array:
    """Return the negative log-marginal of the values of each row that are not NaN, in nats.

    The marginal is the likelihood of a row whose values are missing at random (Rubin 1976).

    Args:
        model: has `observed_log_prob(key, x, context)`, as `Flow`, `AutoregressiveModel` and
            `OrderAgnosticModel` do.
        key: a PRNG key for models that draw a random order.
        x: data `(B, *event_shape)`, with NaN for missing values.
        context: `(B, *context_shape)` for a conditional model.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> model = afflow.fvsbn(2, rngs=nnx.Rngs(0))
        >>> x = jax.numpy.array([[1.0, jax.numpy.nan]])
        >>> loss = afflow.training.observed_likelihood(model, jax.random.key(0), x)
        >>> round(loss.item(), 4)  # log 2
        0.6931
    """
    return -model.observed_log_prob(key, x, context)
