"""The affine scalar map of MAF and IAF."""

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_positive
from afflow._tools.bounds import bound_softly
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate


class Affine(Univariate):
    r"""A scale and a shift, with a smoothly bounded log-scale.

    $$y = x\,e^{\alpha} + \mu, \qquad \alpha = \frac{s}{1 + |s|/c},
    \qquad \log|dy/dx| = \alpha.$$

    The parameters are $(\mu, s)$. Zeros give the identity. The bound $|\alpha| < c$ keeps the
    scale from overflowing. The bound is smooth, so the gradient is never zero.

    Papamakarios et al. 2017, arXiv:1705.07057, eq. 3. The paper has no bound.

    Args:
        max_log_scale: the bound $c$ in nats.

    Raises:
        ValueError: if `max_log_scale <= 0`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.Affine().forward(jnp.array(1.0), jnp.array([2.0, 0.0])).item()
        3.0
    """

    def __init__(self, max_log_scale: float = 7.0):
        check_positive(max_log_scale=max_log_scale)
        self.max_log_scale = float(max_log_scale)
        super().__init__(2)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        mu, alpha = self._parameters(context)
        return x * jnp.exp(alpha) + mu, alpha

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        # Reverse mode stores the inputs only, since the intermediates are cheap to recompute.
        return jax.checkpoint(self._to_noise, prevent_cse=False)(y, context)

    def _to_noise(self, y, params):
        mu, alpha = self._parameters(params)
        return (y - mu) * jnp.exp(-alpha), -alpha

    def _parameters(self, params):
        mu, s = params
        return mu, bound_softly(s, self.max_log_scale)
