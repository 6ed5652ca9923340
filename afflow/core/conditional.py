"""The protocol of a conditional: a scalar distribution whose parameters are arguments."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from afflow._tools.shapes import Shape


class Conditional(ABC):
    r"""A distribution $p(x; \theta)$ of one scalar, with a parameter vector $\theta$ `(P,)`.

    A univariate uses the output of a conditioner as the parameters of a map. A conditional uses
    the output as the parameters of a distribution. A subclass is a hashable value without arrays.
    A subclass sets `num_params` `P`, and `is_discrete`. Zero parameters should give a sensible
    start, such as a uniform or a standard distribution.

    `encode` turns a value into the input of a conditioner. `features` is the length of this
    input. It is 1 if `encode` returns a scalar.

    The values are scalars, unless a subclass sets `event_shape`: a value is then a whole token,
    such as the keys of a chord. A subclass over $\{0, \dots, K-1\}$ sets `num_values` `K`.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import Bernoulli
        >>> round(Bernoulli().log_prob(jnp.array(1), jnp.zeros(1)).item(), 4)
        -0.6931
    """

    event_shape: Shape = ()
    num_params: int
    features: int = 1
    num_values: int | None = None
    is_discrete: ClassVar[bool]

    @abstractmethod
    def log_prob(self, x: jax.Array, params: jax.Array) -> jax.Array:
        """Return the log-probability or log-density of a scalar, in nats."""

    @abstractmethod
    def sample(
        self, key: jax.Array, params: jax.Array, temperature: float | jax.Array = 1.0
    ) -> jax.Array:
        r"""Draw a scalar from the normalised $p(x)^{1/T}$, or from a close substitute."""

    @abstractmethod
    def mode(self, params: jax.Array) -> jax.Array:
        """Return the most probable scalar."""

    @abstractmethod
    def cdf(self, x: jax.Array, params: jax.Array) -> jax.Array:
        r"""Return $\Pr(X \le x)$."""

    def log_probs(self, params: jax.Array) -> jax.Array:
        """Return the log-probability of every value `(K,)`, if there are `num_values` of them."""
        return jax.vmap(self.log_prob, (0, None))(jnp.arange(self.num_values), params)

    def mode_near(self, x: jax.Array, radius: jax.Array, params: jax.Array) -> jax.Array:
        """Return the most probable of the `num_values` values within `radius` of `x`."""
        return find_mode_near(self.log_probs(params), x, radius)

    @abstractmethod
    def encode(self, x: jax.Array) -> jax.Array:
        """Encode `x` for a conditioner, as a scalar or a vector `(features,)`."""


def as_float(x: jax.Array) -> jax.Array:
    """Convert `x` to JAX's default float type, unless it is floating-point already."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)


def without_infinities(x: jax.Array) -> jax.Array:
    """Return `x` with 0 in place of infinite values, whose density is zero.

    What follows stays finite, with its gradients. NaN stays NaN.
    """
    return jnp.where(jnp.isinf(x), jnp.zeros_like(x), x)


def keep_nan(value: jax.Array, x: jax.Array) -> jax.Array:
    """Return `value`, or NaN where `x` is NaN."""
    return jnp.where(jnp.isnan(x), jnp.nan, value)


def find_mode_near(log_probs: jax.Array, x: jax.Array, radius: jax.Array) -> jax.Array:
    """Return the most probable value within `radius` of `x`, by the log-probabilities `(K,)`."""
    distance = jnp.abs(jnp.arange(len(log_probs), dtype=float) - x.astype(float))
    finite = jnp.maximum(log_probs, jnp.finfo(log_probs.dtype).min)  # above the values too far away
    return jnp.argmax(jnp.where(distance <= radius, finite, -jnp.inf)).astype(int)


def check_support(log_prob: jax.Array, x: jax.Array, num: int) -> jax.Array:
    """Return `log_prob` if `x` is an integer in `0..num-1`, NaN if `x` is NaN, else -infinity."""
    x = as_float(x)
    inside = (x >= 0) & (x < num) & (x == jnp.floor(x))
    outside = jnp.where(jnp.isnan(x), jnp.full_like(log_prob, jnp.nan), -jnp.inf)
    return jnp.where(inside, log_prob, outside)


def check_values(conditional: Any, x: Any, observed: Any = None) -> None:
    """Raise `ValueError` for an observed value that a discrete conditional does not have."""
    if not conditional.is_discrete or any(isinstance(a, Tracer) for a in (x, observed)):
        return
    values, mask = np.broadcast_arrays(x, True if observed is None else observed)
    values = values[mask]
    broken = values[values != np.floor(values)]
    if broken.size:
        raise ValueError(
            f"Expected whole numbers in the observed coordinates of a discrete model, got "
            f"{broken[0]}: round the values, or map them to 0, 1, 2, ..."
        )
    num = getattr(conditional, "num_levels", conditional.num_values)
    outside = values[(values < 0) | (values >= num)] if num else values[:0]
    if outside.size:
        raise ValueError(
            f"Expected values from 0 to {num - 1}, got {outside[0]}: recode them, or give the "
            "model more values."
        )
