r"""Bijectors from the whole real space onto a domain.

A domain is open: its boundary counts as outside. At a point outside, an inverse returns an
interior point and the log-determinant $-\infty$. The density of a `Flow` is therefore zero at
that point, with a finite gradient. NaN stays NaN. A forward result that would round onto the
boundary is moved to the nearest number inside, so that samples have a density too.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_positive
from afflow._tools.constants import Constant, check_ends
from afflow._tools.numerics import total
from afflow._tools.shapes import Shape, check_shape, check_size
from afflow.core.bijector import Bijector, of_one_event


class Interval(Bijector):
    r"""A map onto the box between two ends, by a scaled sigmoid.

    $$y_i = a_i + (b_i - a_i)\,\sigma(x_i), \qquad
    \log|\det J| = \sum_i \log\big((b_i - a_i)\,\sigma(x_i)\,\sigma(-x_i)\big).$$

    Args:
        low: lower ends $a$, `event_shape`.
        high: upper ends $b > a$, `event_shape`.

    Raises:
        ValueError: if the shapes differ, or the ends are not finite with `low < high`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> box = afflow.bijectors.Interval(jnp.array([0.0, -1.0]), jnp.array([1.0, 3.0]))
        >>> box.forward(jnp.zeros(2)).tolist()
        [0.5, 1.0]
        >>> flow = afflow.Flow(afflow.Normal(2), box)
        >>> flow.log_prob(jnp.array([1.5, 0.0])).item()
        -inf
    """

    is_elementwise = True

    has_units = True

    def __init__(self, low: ArrayLike, high: ArrayLike):
        self.low, self.high = _hold_ends(low, high)
        self.event_shape, self.context_shape = self.low.shape, None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        low, high = _read_ends(self, x)
        y = low + (high - low) * jax.nn.sigmoid(x)
        log_dets = jnp.log(high - low) + jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x)
        return jnp.clip(y, _next(low, high), _next(high, low)), total(log_dets)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        low, high = _read_ends(self, y)
        outside = (y <= low) | (y >= high)
        y = jnp.where(outside, low / 2 + high / 2, y)
        x = jnp.log(y - low) - jnp.log(high - y)
        log_dets = jnp.log(high - low) - jnp.log(y - low) - jnp.log(high - y)
        return x, _zero_density(outside, log_dets)


class Probit(Bijector):
    r"""A map onto the box between two ends, by the distribution function of the normal.

    $$y_i = a_i + (b_i - a_i)\,\Phi(x_i), \qquad
    \log|\det J| = \sum_i \log\big((b_i - a_i)\,\varphi(x_i)\big).$$

    Standard normal noise becomes uniform on the box. A density that is flat at an end of the box
    has normal tails in front of this map. In front of `Interval` its tails are exponential.

    Args:
        low: lower ends $a$, `event_shape`.
        high: upper ends $b > a$, `event_shape`.

    Raises:
        ValueError: if the shapes differ, or the ends are not finite with `low < high`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> box = afflow.bijectors.Probit(jnp.array([0.0, -1.0]), jnp.array([1.0, 3.0]))
        >>> flow = afflow.Flow(afflow.Normal(2), box)
        >>> round(flow.log_prob(jnp.array([0.9, 2.0])).item(), 4)  # log(1 / 4)
        -1.3863
    """

    is_elementwise = True

    has_units = True

    def __init__(self, low: ArrayLike, high: ArrayLike):
        self.low, self.high = _hold_ends(low, high)
        self.event_shape, self.context_shape = self.low.shape, None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        low, high = _read_ends(self, x)
        width, share = high - low, jax.scipy.special.ndtr(-jnp.abs(x))  # of the nearer end
        y = jnp.where(x < 0, low + width * share, high - width * share)
        y = jnp.where(jnp.isnan(x), x, jnp.clip(y, _next(low, high), _next(high, low)))
        return y, total(jnp.log(width) + _log_normal(x))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        low, high = _read_ends(self, y)
        outside = (y <= low) | (y >= high)
        y = jnp.where(outside, low / 2 + high / 2, y)
        from_low, from_high = y - low, high - y
        is_low = from_low < from_high  # not `minimum`, whose derivative is wrong at the centre
        share = jnp.where(is_low, from_low, from_high) / (high - low)
        x = jax.scipy.special.ndtri(jnp.maximum(share, jnp.finfo(y.dtype).tiny))  # <= 0
        x = jnp.where(is_low, x, -x)
        return x, _zero_density(outside, -jnp.log(high - low) - _log_normal(x))


class Positive(Bijector):
    r"""A map onto the positive reals, by the softplus.

    $$y_i = \log(1 + e^{x_i}), \qquad \log|\det J| = \sum_i \log\sigma(x_i).$$

    Unlike the exponential, the softplus is the identity far out: nothing overflows, and the flow
    before this map sets the tail of the density. For data over many orders of magnitude, model
    the logarithm instead.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.Positive(1).forward(jnp.array([1e4])).tolist()
        [10000.0]
    """

    is_elementwise = True

    has_units = True

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return _softplus(x)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return _inverse_softplus(y)


class Exp(Bijector):
    r"""A map onto the positive reals, by the exponential.

    $$y_i = e^{x_i}, \qquad \log|\det J| = \sum_i x_i.$$

    A change of the units of $y$ only shifts $x$. Results that would overflow become the largest
    number. For lighter tails see `Positive`.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.Exp(2).inverse(jnp.array([1.0, jnp.e])).tolist()
        [0.0, 1.0]
    """

    is_elementwise = True

    has_units = True

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        info = jnp.finfo(x.dtype)
        return jnp.clip(jnp.exp(jnp.minimum(x, jnp.log(info.max))), info.tiny, info.max), total(x)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        outside = y <= 0
        x = jnp.log(jnp.where(outside, 1, y))
        return x, _zero_density(outside, -x)


class Power(Bijector):
    r"""A map from the positive reals onto themselves, by a power.

    $$y_i = x_i^p, \qquad \log|\det J| = \sum_i \big(\log p + (p - 1) \log x_i\big).$$

    Args:
        event_shape: the shape of an event, or the length of a vector.
        exponent: the power $p > 0$.

    Raises:
        ValueError: unless `exponent > 0`, and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.Power(2, 2.0).forward(jnp.array([1.0, 3.0])).tolist()
        [1.0, 9.0]
    """

    is_elementwise = True

    has_units = True

    def __init__(self, event_shape: int | Shape, exponent: float):
        check_positive(exponent=exponent)
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        self.exponent = float(exponent)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return _power(x, self.exponent)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return _power(y, 1 / self.exponent)


class Tanh(Bijector):
    r"""A map onto the cube between -1 and 1, by the hyperbolic tangent.

    $$y_i = \tanh x_i, \qquad \log|\det J| = \sum_i \log(1 - y_i^2).$$

    It equals the `Interval` from -1 to 1 at twice the argument. Bounded actions use it.

    Args:
        event_shape: the shape of an event, or the length of a vector.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.Tanh(1).forward(jnp.array([50.0])).item() < 1
        True
    """

    is_elementwise = True

    has_units = True

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        one = jnp.ones((), x.dtype)
        log_dets = 2 * (math.log(2) + jax.nn.log_sigmoid(2 * x) - x)
        return jnp.clip(jnp.tanh(x), _next(-one, one), _next(one, -one)), total(log_dets)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        outside = (y <= -1) | (y >= 1)
        y = jnp.where(outside, 0, y)
        return jnp.arctanh(y), _zero_density(outside, -jnp.log1p(y) - jnp.log1p(-y))


class Simplex(Bijector):
    r"""A map onto the probabilities of `D + 1` classes, by breaking a stick.

    $$y_k = r_k\,\sigma(x_k - \log(D - k)), \qquad r_k = 1 - \sum_{j<k} y_j, \qquad
    \log|\det J| = \sum_{k=0}^{D} \log y_k.$$

    An event holds the first `D` probabilities, and the density is with respect to these `D`
    coordinates. The last probability is one minus their sum, $y_D = r_D$. Zeros give equal
    probabilities. The Jacobian is lower triangular.

    Args:
        dim: the number `D` of free probabilities, one less than the number of classes.

    Raises:
        ValueError: if `dim < 1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> y = afflow.bijectors.Simplex(3).forward(jnp.zeros(3))
        >>> [round(p, 4) for p in (*y.tolist(), 1 - y.sum().item())]
        [0.25, 0.25, 0.25, 0.25]
    """

    has_units = True

    def __init__(self, dim: int):
        check_size("dim", dim)
        self.event_shape = (dim,)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        x = x - self._offset(x)
        log_rest = jnp.cumsum(jax.nn.log_sigmoid(-x))  # log r[1:]
        log_y = jax.nn.log_sigmoid(x) + jnp.concatenate([jnp.zeros_like(x[:1]), log_rest[:-1]])
        y = _leave(jnp.exp(log_y), jnp.exp(log_rest[-1]))
        return y, total(log_y) + total(log_rest[-1])

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        outside = ((y <= 0) | (y >= 1)).any() | (_compute_remainder(y) <= 0)
        y = jnp.where(outside & ~jnp.isnan(y).any(), 1 / (len(y) + 1), y)
        rest = _compute_rests(y)  # r[1:]
        x = jnp.log(y) - jnp.log(rest) + self._offset(y)
        return x, _zero_density(outside, -total(jnp.log(y)) - total(jnp.log(rest[-1])))

    def _offset(self, x):
        return jnp.log(jnp.arange(len(x), 0, -1, dtype=x.dtype))


def _compute_remainder(y: jax.Array) -> jax.Array:
    """Return `1 - y.sum()`, to about the square of float rounding.

    Every addition keeps its rounding error, and the errors are summed separately.
    """
    sums = jnp.concatenate([jnp.ones_like(y[:1]), -y])
    errors = jnp.zeros_like(sums)
    while len(sums) > 1:
        if len(sums) % 2:
            sums, errors = jnp.pad(sums, (0, 1)), jnp.pad(errors, (0, 1))
        (a, b), lost = sums.reshape(2, -1), errors.reshape(2, -1).sum(0)
        sums = a + b
        b_seen = sums - a
        errors = lost + (a - (sums - b_seen)) + (b - b_seen)
    return sums[0] + errors[0]


@jax.custom_jvp
def _compute_rests(y: jax.Array) -> jax.Array:
    r"""Return $r_{k+1} = 1 - \sum_{j \le k} y_j$ as sums of positive numbers, from the last."""
    return jax.lax.cumsum(jnp.append(y[1:], _compute_remainder(y)), reverse=True)


@_compute_rests.defjvp
def _rests_jvp(primals, tangents):
    """Return `r[1:]` and its tangents, as sums over coordinates `0..k`: exactly triangular."""
    return _compute_rests(*primals), -jnp.cumsum(tangents[0])


def _leave(y: jax.Array, rest: jax.Array) -> jax.Array:
    """Return `y > 0` moved by some ulp, so that the remainder is positive and close to `rest`.

    Each of four rounds adds the excess of the remainder over `rest` to one coordinate: the
    smallest that can hold the excess within 32 rounding errors, or else the largest. The ulp of
    a large coordinate may exceed the excess that is left, so a later round uses a smaller
    coordinate. An excess within 4 rounding errors of `rest` is left alone: if `rest` is near 1,
    such an excess may be larger than all of `y`.
    """
    y = jnp.maximum(y, jnp.finfo(y.dtype).tiny)
    moved, rest = jax.lax.stop_gradient((y, rest))
    for _ in range(4):
        excess = _compute_remainder(moved) - rest
        can_move = moved * 32 * jnp.finfo(y.dtype).eps >= jnp.abs(excess)
        smallest = jnp.argmin(jnp.where(can_move, moved, 2.0))
        place = jnp.where(can_move.any(), smallest, jnp.argmax(moved))
        excess = jnp.where(jnp.abs(excess) > 4 * jnp.finfo(y.dtype).eps * rest, excess, 0)
        moved = jnp.where(jnp.arange(len(y)) == place, moved + excess, moved)
    largest = jnp.arange(len(y)) == jnp.argmax(moved)
    lower = jnp.where(largest, jnp.nextafter(moved, jnp.zeros_like(moved)), moved)
    moved = jnp.where(_compute_remainder(moved) > 0, moved, lower)
    return y + (moved - jax.lax.stop_gradient(y))


class Ordered(Bijector):
    r"""A map onto the vectors in increasing order, by softplus steps.

    $$y_0 = x_0, \qquad y_t = y_{t-1} + \log(1 + e^{x_t}), \qquad
    \log|\det J| = \sum_{t>0} \log\sigma(x_t).$$

    The density is over sorted vectors. For `D` exchangeable values it is `D!` times their joint
    density. A step below the resolution of the float type gives two equal coordinates, which lie
    on the boundary.

    Args:
        dim: number of coordinates `D`.

    Raises:
        ValueError: if `dim < 1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> y = afflow.bijectors.Ordered(3).forward(jnp.array([5.0, -2.0, -3.0]))
        >>> bool((y[1:] > y[:-1]).all())
        True
    """

    has_units = True

    def __init__(self, dim: int):
        check_size("dim", dim)
        self.event_shape = (dim,)
        self.context_shape = None

    @property
    def is_triangular(self) -> bool:
        return True

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        steps, log_det = _softplus(x[1:])
        y = jnp.cumsum(jnp.concatenate([x[:1], steps]))
        return y + jax.lax.stop_gradient(jax.lax.cummax(y) - y), log_det  # rounding may disorder y

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        x, log_det = _inverse_softplus(y[1:] - y[:-1])
        return jnp.concatenate([y[:1], x]), log_det


class CircularShift(Bijector):
    r"""A shift of angles by learned phases: $y_i = x_i + \phi_i$ modulo $2\pi$, on $[-\pi, \pi)$.

    This is a bijection of the circle, not of the line. Use it between maps of $[-\pi, \pi)$ onto
    itself, with a base on that interval such as `Uniform(D, -pi, pi)`. It moves the point of
    the circle that those maps leave fixed. Any real number is read as an angle modulo $2\pi$.
    The log-determinant is zero.

    Rezende et al. 2020, arXiv:2002.02428, section 2.1.

    Args:
        event_shape: the shape of an event, or the length of a vector. The phases start
            at zero: the identity.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> shift = afflow.bijectors.CircularShift(1)
        >>> shift.phase[...] = jnp.array([3.0])
        >>> round(shift.forward(jnp.array([1.0])).item() + 2 * jnp.pi, 4)
        4.0
    """

    is_elementwise = True

    def __init__(self, event_shape: int | Shape):
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        self.phase = nnx.Param(jnp.zeros(self.event_shape))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return _wrap(x + self.phase[...].astype(x.dtype)), jnp.zeros((), jnp.float32)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return _wrap(y - self.phase[...].astype(y.dtype)), jnp.zeros((), jnp.float32)


def _hold_ends(low: ArrayLike, high: ArrayLike) -> tuple[Constant, Constant]:
    """Return the ends of a box as constants. Raise `ValueError` for shapes that differ."""
    if np.shape(low) != np.shape(high):
        raise ValueError(f"Expected low and high alike, got {low} and {high}.")
    lower, upper = check_ends(low, high)
    return Constant(lower), Constant(upper)


def _read_ends(box: "Interval | Probit", like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the ends of a box in the float type of the array `like`."""
    return box.low[...].astype(like.dtype), box.high[...].astype(like.dtype)


def _log_normal(x: jax.Array) -> jax.Array:
    """Return the log-density of the standard normal at each coordinate."""
    return -0.5 * (jnp.square(x) + math.log(2 * math.pi))


def _softplus(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jnp.maximum(jax.nn.softplus(x), jnp.finfo(x.dtype).tiny)
    return y, total(jax.nn.log_sigmoid(x))


def _inverse_softplus(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    outside = y <= 0
    y = jnp.where(outside, 1, y)
    log_slope = jnp.log(-jnp.expm1(-y))  # the slope of the softplus is 1 - e^-y
    return y + log_slope, _zero_density(outside, -log_slope)


def _power(x: jax.Array, exponent: float) -> tuple[jax.Array, jax.Array]:
    outside = x <= 0
    log_x = jnp.log(jnp.where(outside, 1, x))
    info = jnp.finfo(x.dtype)
    y = jnp.exp(jnp.minimum(exponent * log_x, jnp.log(info.max)))
    y = jnp.clip(y, info.tiny, info.max)
    log_dets = math.log(exponent) + (exponent - 1) * log_x
    return y, _zero_density(outside, log_dets)


def _wrap(angle: jax.Array) -> jax.Array:
    """Return the angle modulo two pi, between -pi and pi. An angle in this range stays exact."""
    turns = jax.lax.stop_gradient(jnp.floor((angle + math.pi) / (2 * math.pi)))
    wrapped = angle - 2 * math.pi * turns
    inside = jnp.clip(wrapped, -math.pi, math.pi)
    return wrapped + jax.lax.stop_gradient(inside - wrapped)  # `clip` halves gradients at its ends


def _next(end: jax.Array, towards: jax.Array) -> jax.Array:
    """Return the number next to `end` in the direction of `towards`.

    Next to zero this is the smallest normal number: smaller numbers would be flushed to zero.
    """
    end, towards = jax.lax.stop_gradient((end, towards))
    tiny = jnp.sign(towards) * jnp.finfo(end.dtype).tiny
    return jnp.where(end == 0, tiny, jnp.nextafter(end, towards))


def _zero_density(outside: jax.Array, log_dets: jax.Array) -> jax.Array:
    """Sum log-determinant terms, each replaced by minus infinity where `outside` is true."""
    return total(jnp.where(outside, -jnp.inf, log_dets))


def Logit(event_shape: int | Shape, alpha: float = 1e-6) -> Interval:  # noqa: N802
    r"""Return an `Interval` slightly wider than [0, 1], whose inverse maps data to logits.

    The inverse is $x = \mathrm{logit}(\alpha + (1 - 2\alpha)\,y)$, finite at both ends if
    $\alpha > 0$. Its Jacobian is included, so log-densities are densities of $y$. Put it last in
    a `Chain`.

    Papamakarios et al. 2017, arXiv:1705.07057, appendix D.

    Args:
        event_shape: the shape of an event, or the length of a vector.
        alpha: the margin $\alpha$; in the paper `1e-6` for MNIST, `0.05` for CIFAR-10.

    Raises:
        ValueError: unless `0 <= alpha < 0.5`, or if the float type does not resolve `alpha`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> logit = afflow.bijectors.Logit(2, 0.05)
        >>> [round(x, 4) for x in logit.inverse(jnp.array([0.5, 1.0])).tolist()]
        [0.0, 2.9444]
    """
    if not 0 <= alpha < 0.5:
        raise ValueError(f"Expected 0 <= alpha < 0.5, got {alpha}.")
    zeros, margin = jnp.zeros(check_shape("event_shape", event_shape)), alpha / (1 - 2 * alpha)
    if alpha and zeros.dtype.type(1 + margin) == 1:
        raise ValueError(
            f"Expected alpha = 0 or above the resolution of {zeros.dtype}, got {alpha}: set "
            f"jax_enable_x64."
        )
    return Interval(zeros - margin, zeros + 1 + margin)
