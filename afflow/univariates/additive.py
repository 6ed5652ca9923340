"""The additive scalar map of NICE."""

import jax.numpy as jnp

from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate


class Additive(Univariate):
    r"""A shift $y = x + \mu$ by the parameter $\mu$. It keeps volume: $\log|dy/dx| = 0$.

    Dinh et al. 2015, arXiv:1410.8516.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.univariates.Additive().forward(jnp.array(1.0), jnp.array([2.0])).item()
        3.0
    """

    def __init__(self):
        super().__init__(1)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return x + self._mu(context), jnp.zeros_like(x)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return y - self._mu(context), jnp.zeros_like(y)

    def _mu(self, params):
        return params[0]
