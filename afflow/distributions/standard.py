"""Distributions with independent coordinates of one kind: normal, uniform and other tails."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_number, check_positive
from afflow._tools.constants import Constant, check_ends
from afflow._tools.numerics import inverse_softplus, softplus_above_zero, stop_beyond, widen
from afflow._tools.shapes import Shape, check_shape
from afflow.core.bijector import of_one_event
from afflow.core.distribution import Distribution


class Laplace(Distribution):
    r"""The standard Laplace: $\log p(x) = -\sum_i (|x_i| + \log 2)$.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.distributions.Laplace(1).log_prob(jnp.array([3.0])).item(), 4)
        -3.6931
    """

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def log_prob(self, x, context=None):
        return -jnp.sum(jnp.abs(widen(x)) + math.log(2))

    def sample(self, key, context=None):
        return jax.random.laplace(key, self.event_shape)


class Logistic(Distribution):
    r"""The standard logistic: $\log p(x) = \sum_i \log \sigma(x_i)\,\sigma(-x_i)$.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.distributions.Logistic(1).log_prob(jnp.zeros(1)).item(), 4)
        -1.3863
    """

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def log_prob(self, x, context=None):
        x = widen(x)
        return jnp.sum(jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x))

    def sample(self, key, context=None):
        return jax.random.logistic(key, self.event_shape)


class StudentT(Distribution):
    r"""Student's t at every coordinate, each with its own degrees of freedom.

    $$\log p(x) = \sum_i \log\frac{\Gamma(\frac{\nu_i + 1}{2})}{\Gamma(\frac{\nu_i}{2})
    \sqrt{\pi\nu_i}} - \frac{\nu_i + 1}{2}\log\Big(1 + \frac{x_i^2}{\nu_i}\Big).$$

    A flow with bounded slopes keeps the tail of its base, so heavy tails must be in the base
    (Jaini et al. 2020, arXiv:1907.04481).

    Args:
        event_shape: the shape of an event, or the length of a vector.
        df: the initial degrees of freedom $\nu > 0$.
        learn_df: whether to train the degrees of freedom.

    Raises:
        ValueError: unless `df > 0`, and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> cauchy = afflow.distributions.StudentT(1, 1.0, learn_df=False)
        >>> round(jnp.exp(cauchy.log_prob(jnp.ones(1))).item() * jnp.pi, 4)
        0.5
    """

    def __init__(self, event_shape: int | Shape, df: float = 5.0, *, learn_df: bool = True):
        finite = "> 0 and finite (its limit is `Normal`)"
        check_number("df", df, lambda df: 0 < df < math.inf, finite)
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        raw = inverse_softplus(jnp.full(self.event_shape, df, float))
        self.raw_df = nnx.Param(raw) if learn_df else Constant(raw)

    @property
    def df(self) -> jax.Array:
        """The degrees of freedom, `event_shape`."""
        return softplus_above_zero(self.raw_df[...])

    @of_one_event
    def log_prob(self, x, context=None):
        x = widen(x)
        df = self.df.astype(x.dtype)
        peak = _log_gamma_step(df / 2) - 0.5 * jnp.log(math.pi * df)
        return jnp.sum(peak - (df + 1) / 2 * _log1p_square(x / jnp.sqrt(df)))

    def sample(self, key, context=None):
        normal_key, gamma_key = jax.random.split(key)
        log_gamma = jax.random.loggamma(gamma_key, self.df / 2)  # a gamma draw may round to zero
        deviation = jnp.exp((jnp.log(self.df / 2) - log_gamma) / 2)
        return deviation * jax.random.normal(normal_key, self.event_shape)


class VonMises(Distribution):
    r"""The von Mises distribution of every angle, around zero, on $[-\pi, \pi)$.

    $$\log p(x) = \sum_i \big(\kappa_i \cos x_i - \log 2\pi I_0(\kappa_i)\big).$$

    Any real number is read as an angle modulo $2\pi$. `CircularShift` moves the mean away from
    zero. Samples are drawn by rejection (Best and Fisher 1979) and have no derivative, so train
    by likelihood.

    Args:
        event_shape: the shape of an event, or the length of a vector.
        concentration: the initial $\kappa > 0$; the standard deviation is about $\kappa^{-1/2}$.
        learn_concentration: whether to train the concentrations.

    Raises:
        ValueError: unless `concentration > 0`, and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> angles = afflow.distributions.VonMises(1, 4.0)
        >>> round((angles.log_prob(jnp.zeros(1)) - angles.log_prob(jnp.full(1, jnp.pi))).item(), 4)
        8.0
    """

    def __init__(
        self,
        event_shape: int | Shape,
        concentration: float = 1.0,
        *,
        learn_concentration: bool = True,
    ):
        check_positive(concentration=concentration)
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        raw = inverse_softplus(jnp.full(self.event_shape, concentration, float))
        self.raw_concentration = nnx.Param(raw) if learn_concentration else Constant(raw)

    @property
    def concentration(self) -> jax.Array:
        r"""The concentrations $\kappa$, `event_shape`."""
        return softplus_above_zero(self.raw_concentration[...])

    @of_one_event
    def log_prob(self, x, context=None):
        x = widen(x)
        kappa = self.concentration.astype(x.dtype)
        depth = -2 * kappa * jnp.square(jnp.sin(x / 2))  # kappa (cos x - 1)
        return jnp.sum(depth - _log_i0e(kappa) - math.log(2 * math.pi))

    def sample(self, key, context=None):
        # Near zero the cosine rounds to one, so the loop computes with `1 - cos x`.
        kappa = jax.lax.stop_gradient(self.concentration)
        kappa = jnp.minimum(kappa, 1e30)  # beyond, the proposals are never accepted
        root = jnp.hypot(1.0, 2 * kappa)
        left = (jnp.sqrt(2 * (1 + root)) - 1 - 1 / (2 * kappa + root)) / (2 * kappa)  # 1 - rho
        r = jnp.where(kappa < 1e-3, 1 / kappa, jnp.square(left) / (2 * (1 - left)))  # r - 1

        def propose(state):
            key, depth, done = state
            key, step_key = jax.random.split(key)
            u, v = jax.random.uniform(step_key, (2, *self.event_shape), kappa.dtype)
            sine, cosine = jnp.sin(math.pi / 2 * u), jnp.cos(math.pi / 2 * u)
            d = 2 * r * jnp.square(sine) / (r + 2 * jnp.square(cosine))
            y = kappa * (r + d)
            accepted = (y * (2 - y) > v) | (jnp.log(y / v) + 1 >= y)
            return key, jnp.where(done, depth, d), done | accepted

        key, sign_key = jax.random.split(key)
        broken = jnp.isnan(kappa)
        start = key, jnp.where(broken, jnp.nan, jnp.zeros_like(kappa)), broken
        _, depth, _ = jax.lax.while_loop(lambda state: ~state[2].all(), propose, start)
        sign = jax.random.rademacher(sign_key, self.event_shape, kappa.dtype)
        return sign * 2 * jnp.arcsin(jnp.sqrt(jnp.minimum(depth / 2, 1)))


def _log1p_square(x: jax.Array) -> jax.Array:
    """Return `log(1 + x^2)` without overflow."""
    far = jnp.abs(x) > jnp.finfo(x.dtype).eps ** -0.5
    near = jnp.log1p(jnp.square(jnp.where(far, 1, x)))
    return jnp.where(far, 2 * jnp.log(jnp.abs(jnp.where(far, x, 1))), near)


def _log_gamma_step(a: jax.Array) -> jax.Array:
    """Return `log Gamma(a + 1/2) - log Gamma(a)` without cancellation for large `a`."""
    large = a > 50
    b, c = jnp.where(large, 1, a), jnp.where(large, a, 1)
    i = 1 / c  # its powers underflow where the powers of c would overflow
    series = jnp.log(c) / 2 - i / 8 + i**3 / 192 - i**5 / 640
    return jnp.where(large, series, jax.lax.lgamma(b + 0.5) - jax.lax.lgamma(b))


def _log_i0e(kappa: jax.Array) -> jax.Array:
    r"""Return $\log(e^{-\kappa} I_0(\kappa))$. For a large $\kappa$ it is an asymptotic series.

    The derivative of `i0e` is a difference of two numbers, which then have the same digits.
    """
    large = kappa > 300
    b, c = jnp.where(large, 1, kappa), jnp.where(large, kappa, 1)
    i = 1 / c
    series = i / 8 + 9 / 128 * i**2 + 75 / 1024 * i**3 + 3675 / 32768 * i**4
    far = jnp.log1p(series) - jnp.log(2 * math.pi * c) / 2
    return jnp.where(large, far, jnp.log(jax.scipy.special.i0e(b)))


class Normal(Distribution):
    r"""The standard normal: $\log p(x) = -\tfrac12 \sum_i (x_i^2 + \log 2\pi)$.

    The gradient at a coordinate is zero where a gradient through a flow would overflow: beyond
    1e15 in float32.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> round(afflow.Normal(2).log_prob(jnp.zeros(2)).item(), 4)
        -1.8379
    """

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def log_prob(self, x, context=None):
        return jnp.sum(self.log_probs(x))

    def log_probs(self, x: jax.Array) -> jax.Array:
        """Return the log-density of each coordinate, `event_shape`."""
        x = stop_beyond(widen(x), 0.4)
        return -0.5 * (jnp.square(x) + math.log(2 * math.pi))

    def sample(self, key, context=None):
        return jax.random.normal(key, self.event_shape)


class Uniform(Distribution):
    r"""Uniform on a box: $\log p(x) = -\sum_i \log(b - a)$ inside, $-\infty$ outside.

    Args:
        event_shape: the shape of an event, or the length of a vector.
        low: lower bounds $a$, of the shape of an event, or one number for all coordinates.
        high: upper bounds $b > a$, of the shape of an event or one number.

    Raises:
        ValueError: unless all bounds are finite with `low < high`, in shapes that fit.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> box = afflow.Uniform(2, 0.0, 2.0)
        >>> round(box.log_prob(jnp.ones(2)).item(), 4), box.log_prob(jnp.full(2, 3.0)).item()
        (-1.3863, -inf)
    """

    def __init__(self, event_shape: int | Shape, low: ArrayLike = 0.0, high: ArrayLike = 1.0):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        if any(np.shape(end) not in ((), self.event_shape) for end in (low, high)):
            raise ValueError(f"Expected low and high {self.event_shape}, got {low} and {high}.")
        low, high = check_ends(low, high)
        self.low = Constant(jnp.broadcast_to(low, self.event_shape))
        self.high = Constant(jnp.broadcast_to(high, self.event_shape))

    @of_one_event
    def log_prob(self, x, context=None):
        return jnp.sum(self.log_probs(x))

    def log_probs(self, x: jax.Array) -> jax.Array:
        """Return the log-density of each coordinate, `event_shape`."""
        x = widen(x)
        low, high = self.low[...].astype(x.dtype), self.high[...].astype(x.dtype)
        inside = 0 * x - jnp.log(high - low)  # 0 * x keeps NaN
        outside = (x < low) | (x > high)
        return jnp.where(outside, -jnp.inf, inside)

    def sample(self, key, context=None):
        low, high = self.low[...], self.high[...]
        return jax.random.uniform(key, self.event_shape, minval=low, maxval=high)
