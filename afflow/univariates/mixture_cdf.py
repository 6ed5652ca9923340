"""Mixture CDFs: a scalar map from a mixture of logistics or normals to a single component."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, log_softmax
from jax.tree_util import Partial
from jax.typing import DTypeLike

from afflow._tools.arguments import check_number, check_positive
from afflow._tools.bounds import bound_softly, compute_gains
from afflow._tools.numerics import log_sum_exp, normalize, stop_beyond
from afflow._tools.shapes import check_size
from afflow.core.bijector import of_one_event
from afflow.core.univariate import Univariate
from afflow.univariates.monotone import Start, solve_monotone

_LOG_2 = math.log(2)
_LOG_SQRT_2PI = math.log(2 * math.pi) / 2
_FAR = 10.0


class Component(ABC):
    """A distribution symmetric about zero, given by the logarithms of its tail probabilities.

    A subclass sets `deviation`, the standard deviation.
    """

    deviation: ClassVar[float]

    @abstractmethod
    def log_density(self, u: jax.Array) -> jax.Array:
        r"""Return the log-density $\log g(u)$, where $g = -S'$."""

    @abstractmethod
    def sample(self, key: jax.Array, dtype: DTypeLike) -> jax.Array:
        """Draw one value."""

    @abstractmethod
    def log_tail(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        r"""Return $\log S(u)$ and $\log\lambda(u)$, with $S(u) = \Pr(U > u)$, $\lambda = -S'/S$."""

    def log_tails(self, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return `log_tail` of `u` and of `-u`, stacked along a new first axis."""
        return self.log_tail(jnp.stack([u, -u]))

    @abstractmethod
    def quantile(self, log_s: jax.Array) -> jax.Array:
        r"""Return the $u \ge 0$ with $\log S(u)$ equal to `log_s`, at most $\log\tfrac12$."""


@dataclass(frozen=True)
class LogisticCDF(Component):
    r"""The standard logistic distribution: $S(u) = \sigma(-u)$, $\lambda(u) = \sigma(u)$."""

    deviation = math.pi / math.sqrt(3)

    def log_density(self, u):
        return log_sigmoid(u) + log_sigmoid(-u)

    def sample(self, key, dtype):
        return jax.random.logistic(key, (), dtype)

    def log_tail(self, u):
        return log_sigmoid(-u), log_sigmoid(u)

    def log_tails(self, u):
        above, below = self.log_tail(u)
        return jnp.stack([above, below]), jnp.stack([below, above])

    def quantile(self, log_s):
        return jnp.log(-jnp.expm1(log_s)) - log_s


@dataclass(frozen=True)
class GaussianCDF(Component):
    r"""The standard normal distribution: $S(u) = \tfrac12\,\mathrm{erfc}(u/\sqrt2)$."""

    deviation = 1.0

    def log_density(self, u):
        # The gradient by the weights of a ReLU network grows as the cube of u.
        return -jnp.square(stop_beyond(u, 0.3)) / 2 - _LOG_SQRT_2PI

    def sample(self, key, dtype):
        return jax.random.normal(key, (), dtype)

    def log_tail(self, u):
        return _normal_log_tail(u), _normal_log_hazard(u)

    def log_tails(self, u):
        # The larger tail is one minus the smaller: both need one complementary error function.
        is_right = u >= 0
        v = jnp.where(is_right, u, -u)
        less = self.log_tail(v)
        log_more = jnp.log1p(-jnp.exp(less[0]))
        more = log_more, self.log_density(v) - log_more
        return tuple(
            jnp.stack([jnp.where(is_right, a, b), jnp.where(is_right, b, a)])
            for a, b in zip(less, more, strict=True)
        )

    def quantile(self, log_s):
        return _normal_quantile(log_s)


@dataclass(frozen=True)
class LaplaceCDF(Component):
    r"""The standard Laplace distribution: $S(u) = \tfrac12 e^{-u}$ for $u \ge 0$."""

    deviation = math.sqrt(2)

    def log_density(self, u):
        return -jnp.abs(u) - _LOG_2

    def sample(self, key, dtype):
        return jax.random.laplace(key, (), dtype)

    def log_tail(self, u):
        log_s = jnp.where(u > 0, -u - _LOG_2, jnp.log1p(-jnp.exp(jnp.where(u > 0, 0, u)) / 2))
        return log_s, self.log_density(u) - log_s

    def quantile(self, log_s):
        return -log_s - _LOG_2


class MixtureCDF(Univariate):
    r"""The CDF of a mixture, followed by the quantile function of one component.

    $$x = G^{-1}\Big(\sum_k \pi_k\, G\Big(\frac{y - \mu_k}{s_k}\Big)\Big),$$

    from data to noise. The direction from noise to data is found numerically. With noise of
    distribution $G$, the data have exactly the density of the mixture. The map is computed from
    logarithms of tail probabilities. Far out, where the probabilities underflow, it is therefore
    the map of the outermost component.

    Flow++ has logistic components (Ho et al. 2019, arXiv:1902.00275). With Gaussian components an
    autoregressive layer is the RNADE of Uria et al. 2013, arXiv:1306.0186.

    The parameters are `K` logits of $\pi$, `K` raw locations and `K` raw log-scales. The raw
    locations and log-scales are multiplied by constants (`compute_gains`). The log-scales are then
    bounded as in `Affine`. Finally the start of `start_apart` is added. With zeros the mixture is
    close to $G$ and has the variance of $G$, so the map is close to the identity. It is the
    identity for one component or `spread=0`. Equal components are a saddle of the likelihood,
    which training hardly leaves.

    Args:
        num_components: the number of components `K`.
        component: the distribution $G$: `LogisticCDF()`, `GaussianCDF()` or `LaplaceCDF()`.
        max_log_scale: the bound on $|\log s_k - c|$, where $c$ is the log-scale at the start.
        spread: how far apart the components start, in [0, 1).

    Raises:
        ValueError: if `num_components < 1`, `max_log_scale <= 0` or `spread` is out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> mixture = afflow.univariates.MixtureCDF(2, afflow.univariates.GaussianCDF(), spread=0.0)
        >>> params = jnp.array([0.0, 0.0, -4.0, 1.0, 0.0, 0.0])  # means -2 and 2
        >>> abs(round(mixture.inverse(jnp.array(0.0), params).item(), 4))
        0.0
    """

    ABSENT: ClassVar = {"spread": 0.0}  # value for archives that were saved before `spread` existed

    def __init__(
        self,
        num_components: int = 8,
        component: Component = LogisticCDF(),
        max_log_scale: float = 7.0,
        spread: float = 0.5,
    ):
        check_mixture(num_components, max_log_scale, spread)
        self.num_components = num_components
        self.component = component
        self.max_log_scale = float(max_log_scale)
        self.spread = float(spread)
        super().__init__(3 * num_components)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        parameters = mixture_parameters(self, context)
        y = solve_monotone(Partial(MixtureCDF._read, self), x, parameters, surround(x, *parameters))
        return y, -self._read(y, parameters)[1]

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._read(y, mixture_parameters(self, context))

    def _read(self, y, parameters):
        log_pi, mu, log_s = parameters
        return mix(self.component, log_pi, (y - mu) * jnp.exp(-log_s), -log_s)


class MixtureSettings(Protocol):
    """The settings that the map `MixtureCDF` and the conditional `MixtureOf` share."""

    @property
    def num_components(self) -> int: ...
    @property
    def component(self) -> Component: ...
    @property
    def max_log_scale(self) -> float: ...
    @property
    def spread(self) -> float: ...


def check_mixture(num_components: int, max_log_scale: float, spread: float) -> None:
    """Raise `ValueError` if a setting of a mixture is out of range."""
    check_size("num_components", num_components)
    check_positive(max_log_scale=max_log_scale)
    check_number("spread", spread, lambda spread: 0 <= spread < 1, "in [0, 1)")


def mixture_parameters(
    mixture: MixtureSettings, params: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""Return $\log\pi_k$, $\mu_k$ and $\log s_k$ `(K,)` from unbounded parameters `(3 K,)`."""
    logits, mu, s = jnp.split(jnp.asarray(params), 3)
    gain = compute_gains(len(logits), logits.dtype)
    locations, log_scale = start_apart(mixture.num_components, mixture.component, mixture.spread)
    mu = gain * mu + jnp.asarray(locations, mu.dtype)
    return log_softmax(logits), mu, bound_softly(gain * s, mixture.max_log_scale) + log_scale


def surround(x: jax.Array, log_pi: jax.Array, mu: jax.Array, log_s: jax.Array) -> Start:
    """Return where to search: between the places to which single components would take `x`.

    The search starts at the mean of these places. The bracket is wider by the rounding of a place.
    """
    s = jnp.exp(log_s)
    places, rounding = mu + s * x, 4 * jnp.finfo(x.dtype).eps * (jnp.abs(mu) + s * jnp.abs(x))
    low, high = jnp.min(places - rounding), jnp.max(places + rounding)
    return Start(low, jnp.clip(jnp.sum(jnp.exp(log_pi) * places), low, high), high)


def start_apart(num: int, component: Component, spread: float) -> tuple[np.ndarray, float]:
    r"""Return locations `(K,)` and one log-scale of a mixture with the variance of $G$.

    The locations are the normal quantiles $c\,\sigma_G\,\Phi^{-1}((k + \tfrac12)/K)$, where $c$ is
    the spread. The log-scale is negative, to make up for the variance of the locations.
    """
    quantiles = spread * np.array([NormalDist().inv_cdf((k + 0.5) / num) for k in range(num)])
    log_scale = float(np.log1p(-np.square(quantiles).mean()) / 2)
    return component.deviation * quantiles, log_scale


def mix(
    component: Component, log_pi: jax.Array, u: jax.Array, log_slopes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""Return $z = G^{-1}(\sum_k \pi_k G(u_k))$, and $\log dz/dy$ given $\log du_k/dy$.

    The computation uses survival functions, on the side of the median where
    $S(z) \le \tfrac12$: $S(z) = \sum_k \pi_k S(u_k)$, and
    $dz/dy = \sum_k q_k\, \lambda(u_k)\, u_k' / \lambda(z)$ with $q_k = \pi_k S(u_k) / S(z)$.
    Far out $z$ is the least distant $u_k$, so a common factor of all $u_k$ is a factor of $z$.

    Args:
        component: the distribution $G$.
        log_pi: normalised log-weights `(K,)`.
        u: arguments $u_k$ of the components `(K,)`.
        log_slopes: $\log du_k/dy$ `(K,)`.
    """
    u, factor = _shrink(u)
    log_s, log_hazards = component.log_tails(u)  # (2, K)
    above, below = log_pi + log_s[0], log_pi + log_s[1]
    right = jnp.sum(jnp.exp(above)) <= 0.5
    log_q, log_survival = normalize(jnp.where(right, above, below))
    z = component.quantile(log_survival)
    log_rates = log_q + jnp.where(right, *log_hazards) + log_slopes  # (K,)
    log_slope = log_sum_exp(log_rates) - component.log_tail(z)[1]
    return factor * jnp.where(right, z, -z), log_slope


def _shrink(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return `u` `(K,)` divided by a factor, so that logarithms of tails are finite.

    The factor is 1 unless all components are far out on one side, beyond 3e11 in float32.
    """
    most = float(jnp.finfo(u.dtype).max)
    least_distance = jnp.maximum(jnp.min(u), -jnp.max(u))
    factor = jax.lax.stop_gradient(jnp.clip(least_distance / most**0.3, 1, most**0.6))
    return jnp.clip(u / factor, -(most**0.48), most**0.48), factor


@jax.custom_jvp
def _normal_log_tail(u: jax.Array) -> jax.Array:
    r"""Return $\log S(u)$ of a normal; its derivative $-\lambda(u)$ does not divide by $S(u)$."""
    far = u > _FAR
    near = jnp.log(jax.lax.erfc(jnp.where(far, 0.0, u) / math.sqrt(2)) / 2)
    v = jnp.where(far, u, _FAR)
    return jnp.where(far, GaussianCDF().log_density(v) - _far_log_hazard(v), near)


@_normal_log_tail.defjvp
def _normal_log_tail_jvp(primals, tangents):
    (u,), (d_u,) = primals, tangents
    return _normal_log_tail(u), -jnp.exp(_normal_log_hazard(u)) * d_u


def _normal_log_hazard(u: jax.Array) -> jax.Array:
    far = u > _FAR
    v = jnp.where(far, 0.0, u)
    near = GaussianCDF().log_density(v) - _normal_log_tail(v)
    return jnp.where(far, _far_log_hazard(jnp.where(far, u, _FAR)), near)


def _far_log_hazard(u: jax.Array) -> jax.Array:
    r"""Return the log of $u + 1/(u + 2/(u + 3/(u + \dots)))$, exact to rounding for $u \ge 10$."""
    hazard = u
    for n in range(8, 0, -1):
        hazard = u + n / hazard
    return jnp.log(hazard)


@jax.custom_jvp
def _normal_quantile(log_s: jax.Array) -> jax.Array:
    r"""Solve $\log S(u) = \ell$ of a normal by Newton's method.

    The start is the rational function of $\sqrt{-2\ell}$ of Abramowitz and Stegun 1964, 26.2.23,
    whose error is below 5e-4. Two steps reach rounding.
    """
    t = jnp.sqrt(-2 * log_s)
    u = t - ((0.010328 * t + 0.802853) * t + 2.515517) / (
        ((0.001308 * t + 0.189269) * t + 1.432788) * t + 1
    )
    for _ in range(2):
        log_survival, log_hazard = GaussianCDF().log_tail(u)
        u = u + (log_survival - log_s) * jnp.exp(-log_hazard)
    return u


@_normal_quantile.defjvp
def _normal_quantile_jvp(primals, tangents):
    u = _normal_quantile(*primals)
    return u, -tangents[0] * jnp.exp(-GaussianCDF().log_tail(u)[1])
