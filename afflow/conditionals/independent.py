"""Independent values of one token."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_instance
from afflow._tools.shapes import Shape, check_size
from afflow.core.conditional import Conditional


@dataclass(frozen=True)
class Independent(Conditional):
    r"""A conditional of a whole token, whose values are independent given its parameters.

    $$p(x; \theta) = \prod_{c=1}^C p(x_c; \theta_c).$$

    Examples are the keys of a chord in a temporal convolutional network, and the values of a frame.
    For values that depend on each other within the token there is `models.TokenModel`.

    Args:
        conditional: the conditional of one value.
        size: number of values in a token `C`.

    Raises:
        ValueError: for a size below one, or a conditional of whole tokens.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import Bernoulli, Independent
        >>> keys = Independent(Bernoulli(), 3)
        >>> round(keys.log_prob(jnp.array([0, 1, 1]), jnp.zeros(keys.num_params)).item(), 4)
        -2.0794
    """

    conditional: Conditional
    size: int

    def __post_init__(self):
        check_instance("conditional", self.conditional, Conditional)
        check_size("size", self.size)
        if self.conditional.event_shape:
            raise ValueError(f"Expected a conditional of scalars, got {self.conditional}.")

    @property
    def event_shape(self) -> Shape:
        return (self.size,)

    @property
    def num_params(self) -> int:
        return self.size * self.conditional.num_params

    @property
    def features(self) -> int:
        return self.size * self.conditional.features

    @property
    def is_discrete(self) -> Any:
        """Whether the values are discrete."""
        return self.conditional.is_discrete

    def log_prob(self, x, params):
        return jax.vmap(self.conditional.log_prob)(x, self._each(params)).sum()

    def sample(self, key, params, temperature=1.0):
        keys = jax.random.split(key, self.size)
        sample = jax.vmap(self.conditional.sample, (0, 0, None))
        return sample(keys, self._each(params), temperature)

    def mode(self, params):
        return jax.vmap(self.conditional.mode)(self._each(params))

    def cdf(self, x, params):
        """Return the probability that no value is greater than the value in `x`."""
        return jnp.prod(jax.vmap(self.conditional.cdf)(x, self._each(params)))

    def encode(self, x):
        return jax.vmap(self.conditional.encode)(x).reshape(self.features)

    def _each(self, params):
        return params.reshape(self.size, self.conditional.num_params)
