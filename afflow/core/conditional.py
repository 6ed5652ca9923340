"""The protocol of a conditional: a scalar distribution that is told its parameters."""

from abc import ABC, abstractmethod
from typing import ClassVar

import jax
import jax.numpy as jnp


class Conditional(ABC):
    r"""A distribution $p(x; \theta)$ of one scalar, its parameters $\theta$ a vector `(P,)`.

    The twin of a univariate: what a conditioner computes is read as a distribution, not as
    a map. A subclass is a hashable value without arrays, and sets `num_params` `P`. All
    parameters zero are a sensible start: uniform, or standard.

    `features` is the length of the code by which a conditioner reads a value: 1 where that
    is the value itself.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import Bernoulli
        >>> round(Bernoulli().log_prob(jnp.array(1), jnp.zeros(1)).item(), 4)
        -0.6931
    """

    num_params: int
    features: int = 1
    is_discrete: ClassVar[bool]

    @abstractmethod
    def log_prob(self, x: jax.Array, params: jax.Array) -> jax.Array:
        """Return the log-probability or log-density of a scalar, in nats."""

    @abstractmethod
    def sample(
        self, key: jax.Array, params: jax.Array, temperature: float | jax.Array = 1.0
    ) -> jax.Array:
        r"""Draw a scalar from $p(x)^{1/T}$, normalised, or from its nearest kin."""

    @abstractmethod
    def mode(self, params: jax.Array) -> jax.Array:
        """Return the most probable scalar."""

    @abstractmethod
    def cdf(self, x: jax.Array, params: jax.Array) -> jax.Array:
        r"""Return $\Pr(X \le x)$."""

    @abstractmethod
    def encode(self, x: jax.Array) -> jax.Array:
        """Encode `x` for a conditioner, as a scalar or a vector `(features,)`."""


def as_float(x: jax.Array) -> jax.Array:
    """Return `x` in floating point."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


def supported(log_prob: jax.Array, x: jax.Array, num: int) -> jax.Array:
    """Return `log_prob` at the integers `0..num-1`, negative infinity elsewhere, NaN at NaN."""
    x = as_float(x)
    inside = (x >= 0) & (x < num) & (x == jnp.floor(x))
    outside = jnp.where(jnp.isnan(x), jnp.full_like(log_prob, jnp.nan), -jnp.inf)
    return jnp.where(inside, log_prob, outside)
