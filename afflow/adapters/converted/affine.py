"""The affine univariate of other libraries, whose scales are not exponentials."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate


@dataclass(frozen=True)
class SoftplusScale:
    """The scale $softplus(r) + c$ of a raw parameter `r`."""

    least: float

    def __call__(self, raw: jax.Array) -> jax.Array:
        """Return the scale."""
        return jax.nn.softplus(raw) + self.least


@dataclass(frozen=True)
class SigmoidScale:
    """The scale $sigmoid(r + o) + c$ of a raw parameter `r`."""

    offset: float
    least: float

    def __call__(self, raw: jax.Array) -> jax.Array:
        """Return the scale."""
        return jax.nn.sigmoid(raw + self.offset) + self.least


class ConvertedAffine(Univariate):
    r"""A scale and a shift with any positive function as scale.

    $$y = x\, s(r) + \mu, \qquad \log|dy/dx| = \log s(r).$$

    The parameters are $(\mu, r)$. Zeros do not give the identity.

    Args:
        scale: the function $s$.
    """

    def __init__(self, scale: Callable[[jax.Array], jax.Array]):
        self.scale = scale
        super().__init__(2)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        mu, scale = self._parameters(context)
        return x * scale + mu, jnp.log(scale)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        mu, scale = self._parameters(context)
        return (y - mu) / scale, -jnp.log(scale)

    def _parameters(self, params):
        mu, raw = params
        return mu, self.scale(raw)
