"""Categorical: one of K symbols for each coordinate."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_positive
from afflow._tools.shapes import check_size
from afflow.core.conditional import Conditional, as_float, check_support, keep_nan


class Softmax(Conditional):
    """A distribution over `num_values` values with a logit for each."""

    num_values: int
    is_discrete = True

    @property
    def num_params(self) -> int:
        return self.num_values

    def log_probs(self, params):
        return jax.nn.log_softmax(params)

    def log_prob(self, x, params):
        chosen = jnp.where(self._indicator(x), jax.nn.log_softmax(params), 0).sum()
        return check_support(chosen, x, self.num_values)

    def sample(self, key, params, temperature=1.0):
        return jax.random.categorical(key, params / temperature).astype(int)

    def mode(self, params):
        return jnp.argmax(params).astype(int)

    def cdf(self, x, params):
        below = jax.nn.softmax(params) @ (jnp.arange(self.num_values) <= x)
        return keep_nan(jnp.where(x < self.num_values - 1, below, 1.0), x)

    def _indicator(self, x):
        return as_float(x) == jnp.arange(self.num_values)


@dataclass(frozen=True)
class Categorical(Softmax):
    r"""$p(x; \theta) = e^{\theta_x} / \sum_k e^{\theta_k}$ over $x \in \{0, \dots, K-1\}$.

    The parameters are `K` logits. A conditioner reads a symbol as `K` numbers, so it needs
    `features=K`: the number at the place of the symbol is `height`, the others are zero.

    Args:
        num_classes: the number of symbols `K`, at least 2.
        height: the number that stands for a symbol; $\sqrt K$ by default. The `K` numbers then
            have mean square one, which the initial weights of networks expect.

    Raises:
        ValueError: if `num_classes < 2` or `height <= 0`.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import Categorical
        >>> round(Categorical(4).log_prob(jnp.array(3), jnp.zeros(4)).item(), 4)
        -1.3863
        >>> Categorical(4).encode(jnp.array(3)).tolist()
        [0.0, 0.0, 0.0, 2.0]
    """

    num_classes: int
    height: float | None = field(default=None, repr=False)
    ABSENT: ClassVar = {"height": 1.0}  # value for archives that were saved before `height` existed

    def __post_init__(self):
        check_size("num_classes", self.num_classes, least=2)
        if self.height is not None:
            check_positive(height=self.height)

    @property
    def features(self) -> int:
        return self.num_classes

    @property
    def num_values(self) -> int:
        return self.num_classes

    def encode(self, x):
        height = math.sqrt(self.num_classes) if self.height is None else self.height
        return height * self._indicator(x).astype(as_float(x).dtype)
