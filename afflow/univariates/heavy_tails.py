"""A scalar map that gives heavy tails to a normal distribution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from afflow._tools.numerics import times_exp
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate

_OFFSET = 5.0  # zero parameters then give an index of 0.013
_HEAVIEST = 2.0  # the supremum of the index
_FAR = 8.0  # standard deviations; a normal reaches further once in 10^15 draws
_STEPS = 4
_SHARES, _FEWEST = (0.02, 0.005), 5  # shares of the rows in a tail, and the least number of rows


class HeavyTails(Univariate):
    r"""A map from a normal distribution to one with power tails: Tukey's `hh` transform.

    $$y = x\,e^{\delta x^2 / 2}, \qquad
    \log|dy/dx| = \tfrac12 \delta x^2 + \log(1 + \delta x^2),$$

    with one index $\delta$ for $x < 0$ and another for $x > 0$. The map turns a standard normal
    into a distribution with $P(|y| > t) \approx t^{-1/\delta}$. For comparison, the tails of
    Student's t with $\nu$ degrees of freedom have $\delta = 1/\nu$. The inverse is
    $x = y\,e^{-w/2}$, where $w$ solves Lambert's equation $w e^w = \delta y^2$. Beyond $|x| = 8$
    the map is a straight line.

    The two parameters $s$ belong to the left and to the right tail: $\delta = 2\,\sigma(s - 5)$.
    Zeros give $\delta = 0.013$, close to the identity.

    Tukey 1977; Goerg 2015, arXiv:1010.2265, section 2.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> s = jnp.array(afflow.univariates.HeavyTails.params_of([0.5, 1.0]))
        >>> round(afflow.univariates.HeavyTails().forward(jnp.array(2.0), s).item(), 3)  # 2 e^2
        14.778
    """

    def __init__(self):
        super().__init__(2)

    @staticmethod
    def params_of(index: np.ndarray | list[float]) -> np.ndarray:
        r"""Return the parameters that give the tail indices `index`, clipped to [0.001, 1.9]."""
        share = np.clip(np.asarray(index, np.float64), 1e-3, 1.9) / _HEAVIEST
        return _OFFSET + np.log(share) - np.log1p(-share)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        index = _index(x, context)
        near = jnp.clip(x, -_FAR, _FAR)
        w = index * jnp.square(near)
        log_slope = w / 2 + jnp.log1p(w)
        return near * jnp.exp(w / 2) + times_exp(x - near, log_slope), log_slope

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        index = _index(y, context)
        w = index * _FAR**2
        end = _FAR * jnp.exp(w / 2)
        near = jnp.clip(y, -end, end)
        x, w = _to_normal(near, index)
        log_slope = w / 2 + jnp.log1p(w)
        return x + times_exp(y - near, -log_slope), -log_slope


def tail_indices(y: np.ndarray) -> np.ndarray:
    r"""Estimate the indices $\delta$ of both tails of a column from its extreme order statistics.

    Let $y_{(i)}$ be the distances of the `k` outermost rows from the median, largest first, and
    $x_{(i)}$ the normal quantiles of equal rank. The estimate is

    $$\hat\delta = \sum_{i \le k} \log\frac{y_{(i)}\,x_{(k)}}{y_{(k)}\,x_{(i)}} \Big/
    \sum_{i \le k} \tfrac12\big(x_{(i)}^2 - x_{(k)}^2\big),$$

    Hill's estimator (1975), corrected to give zero for a normal. The estimate uses the outer 2 per
    cent of the rows. It uses the outer 0.5 per cent instead if these give less than half of the
    first estimate. In this case the outer rows end at a bound and do not form a tail.

    Args:
        y: `(N,)`.

    Returns:
        The indices of the left and of the right tail, at least zero. Below 250 rows both are zero.
    """
    sizes = [int(share * len(y)) for share in _SHARES]
    distances = np.sort(y - np.median(y))
    estimates = [_estimate_tails(distances, k) for k in sizes if k >= _FEWEST]
    if not estimates:
        return np.zeros(2)
    most, outermost = estimates[0], estimates[-1]
    return np.where(outermost < most / 2, outermost, most)


def _estimate_tails(distances: np.ndarray, k: int) -> np.ndarray:
    """Estimate the indices of both tails `(2,)` from the `k` outermost sorted `distances`."""
    x = -ndtri((np.arange(k) + 0.5) / len(distances))
    tails = np.stack([-distances[:k], distances[: -k - 1 : -1]])  # (2, k), largest first
    ends = tails[:, -1:]
    logs = np.log(np.where(ends > 0, tails, 1) / np.where(ends > 0, ends, 1)).sum(1)
    excess = np.where(ends[:, 0] > 0, logs - np.log(x / x[-1]).sum(), 0)
    return np.maximum(excess / ((x**2 - x[-1] ** 2) / 2).sum(), 0)


def _index(x: jax.Array, params: Any) -> jax.Array:
    left, right = params
    return _HEAVIEST * jax.nn.sigmoid(jnp.where(x < 0, left, right) - _OFFSET)


@jax.custom_jvp
def _to_normal(y: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Solve $x e^{\delta x^2 / 2} = y$ for $x$. Return $x$ and $w = \delta x^2$.

    Newton's method solves $\log w + w = \log a$ with $a = \delta y^2$. The logarithms neither
    overflow nor vanish. The start is Winitzki's approximation, within 2 per cent for every $a$.
    """
    tiny = jnp.finfo(y.dtype).tiny
    log_a = jnp.log(index) + 2 * jnp.log(jnp.maximum(jnp.abs(y), tiny))
    log_a = jnp.maximum(log_a, jnp.log(tiny) + 8)  # otherwise a small w is flushed to zero
    u = jax.nn.softplus(log_a)
    w = u * (1 - jnp.log1p(u) / (2 + u))
    for _ in range(_STEPS):
        w = w / (1 + w) * (1 + log_a - jnp.log(w))
    far = jnp.sign(y) * jnp.sqrt(w / index)  # exp(-w / 2) would amplify the rounding of a large w
    return jnp.where(w > 1, far, y * jnp.exp(-w / 2)), w


@_to_normal.defjvp
def _to_normal_jvp(primals, tangents):
    y, index = primals
    y_dot, index_dot = tangents
    x, w = _to_normal(y, index)
    shrink = jnp.exp(-w / 2) / (1 + w)  # dx/dy
    x_dot = shrink * y_dot - x * jnp.square(x) / 2 / (1 + w) * index_dot
    w_dot = 2 * index * x * shrink * y_dot + jnp.square(x) / (1 + w) * index_dot
    return (x, w), (x_dot, w_dot)
