"""Bernoulli: a binary value for each coordinate."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from afflow.core.conditional import (
    Conditional,
    as_float,
    check_support,
    keep_nan,
    without_infinities,
)


@dataclass(frozen=True)
class Bernoulli(Conditional):
    r"""$p(x; \theta) = \sigma(\theta)^x (1 - \sigma(\theta))^{1-x}$ over $x \in \{0, 1\}$.

    The only parameter is the logit. At any other `x` the log-probability is $-\infty$.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import Bernoulli
        >>> Bernoulli().mode(jnp.array([2.0])).item()
        1
    """

    num_params, num_values = 1, 2
    is_discrete = True

    def log_prob(self, x, params):
        (logit,) = params
        sign = 1 - 2 * without_infinities(as_float(x)).astype(logit.dtype)
        return check_support(-jax.nn.softplus(sign * logit), x, 2)

    def sample(self, key, params, temperature=1.0):
        logit = params[0] / temperature
        rare = _uniform(key, logit.dtype) < jax.nn.sigmoid(-jnp.abs(logit))
        return jnp.where(logit > 0, ~rare, rare).astype(int)

    def mode(self, params):
        return (params[0] > 0).astype(int)

    def cdf(self, x, params):
        below = jnp.where(x < 0, 0.0, jax.nn.sigmoid(-params[0]))
        return keep_nan(jnp.where(x < 1, below, 1.0), x)

    def encode(self, x):
        return as_float(x)


def _uniform(key: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Draw from (0, 1) in steps finer than the machine epsilon, the step of `jax.random.uniform`.

    Otherwise an event with a probability below epsilon could not be drawn correctly.
    """
    first, second = jax.random.split(key)
    step = jnp.finfo(dtype).eps
    fine = jax.random.uniform(second, (), dtype, minval=step, maxval=1.0)
    return jax.random.uniform(first, (), dtype) + step * fine
