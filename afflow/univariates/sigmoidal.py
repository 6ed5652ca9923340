"""The deep sigmoidal flows of NAF."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.nn import log_softmax

from afflow._tools.bounds import bound_softly, compute_gains
from afflow._tools.numerics import log_sum_exp
from afflow._tools.shapes import check_widths
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.mixture_cdf import LogisticCDF, check_mixture, mix, start_apart
from afflow.univariates.monotone import forward_by_search


class Sigmoidal(Univariate):
    r"""A monotone network of sigmoids and inverse sigmoids, from data to noise.

    $$h^{l} = \sigma^{-1}\big(W^{l}\, \sigma(a^{l} \odot U^{l} h^{l-1} + b^{l})\big),
    \qquad h^0 = y, \quad x = h^L,$$

    with $a > 0$. The rows of $U$ and $W$ are positive with sum one. One hidden width gives the DSF
    of the paper, several widths give the DDSF. In the DDSF, $h^l$ has as many units as layer `l`
    has sigmoids, except for the scalar $h^L$. The slope is a product of Jacobians in log space.
    Far out the map is linear, so it is onto the real line. The direction from noise to data is
    found numerically. Huang et al. 2018, arXiv:1804.00779, eq. 8 and 9.

    With zeros the weights are uniform. The sigmoids then stand apart like the components of
    `MixtureCDF`, and the map is close to the identity. It is the identity for `spread=0`. Constant
    gains on $a$, $b$ and the rows of $W$ give different gradients to different units. A softmax
    over `n` entries has `n - 1` parameters.

    Args:
        hidden: number of sigmoids in each layer.
        max_log_scale: the bound on $|\log a - c|$ in each layer, with $c$ the start of $\log a$.
        spread: how far apart the sigmoids start, in [0, 1).

    Raises:
        ValueError: if `hidden` is empty or has a width under one, or a number is out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> ddsf = afflow.univariates.Sigmoidal((4, 4), spread=0.0)
        >>> round(ddsf.inverse(jnp.array(1.5), jnp.zeros(ddsf.context_shape)).item(), 4)
        1.5
    """

    ABSENT: ClassVar = {"spread": 0.0}  # value for archives that were saved before `spread` existed

    def __init__(
        self, hidden: Sequence[int] = (16,), max_log_scale: float = 7.0, spread: float = 0.5
    ):
        check_widths(hidden, least=1)
        for width in hidden:
            check_mixture(width, max_log_scale, spread)
        self.hidden = tuple(hidden)
        self.max_log_scale, self.spread = float(max_log_scale), float(spread)
        super().__init__(sum(math.prod(shape) for shapes in self._shapes() for shape in shapes))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return forward_by_search(self, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        h, log_slopes = y[None], jnp.zeros((1,), y.dtype)
        for a, b, u, w in self._split(context):
            h, log_slopes = self._layer(h, log_slopes, a, b, u, w)
        return h[0], log_slopes[0]

    def _layer(self, h, log_slopes, a, b, u, w):
        """Compute values and log-slopes of the next layer from `h` and its log-slopes `(d,)`."""
        gain, rows = compute_gains(len(a), a.dtype), compute_gains(len(w), w.dtype)
        start, log_scale = start_apart(len(a), LogisticCDF(), self.spread)
        log_a = bound_softly(gain * a, self.max_log_scale) - log_scale
        log_u, log_w = _log_weights(u), _log_weights(rows[:, None] * w)
        b = gain * b - jnp.asarray(start * math.exp(-log_scale), b.dtype)
        v = jnp.exp(log_a) * (jnp.exp(log_u) @ h) + b  # (K,)
        log_slopes = log_a + jax.vmap(log_sum_exp)(log_u + log_slopes[None])
        layer = partial(mix, LogisticCDF())
        return jax.vmap(layer, in_axes=(0, None, None))(log_w, v, log_slopes)

    def _shapes(self):
        """Return the shapes of `a`, `b` and the free logits of `U` and `W`, for each layer."""
        widths = (1, *self.hidden[:-1], 1)
        return [
            ((k,), (k,), (k, before - 1), (after, k - 1))
            for k, (before, after) in zip(self.hidden, pairwise(widths), strict=True)
        ]

    def _split(self, params):
        start = 0
        for shapes in self._shapes():
            arrays = []
            for shape in shapes:
                size = math.prod(shape)
                arrays.append(params[start : start + size].reshape(shape))
                start += size
            yield arrays


def _log_weights(free: jax.Array) -> jax.Array:
    """Return rows of normalised log-weights `(n, m)` from free logits `(n, m - 1)`."""
    return log_softmax(jnp.pad(free, ((0, 0), (1, 0))), axis=1)
