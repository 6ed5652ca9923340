"""Maps that act on each coordinate separately."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_positive
from afflow._tools.arrays import cast, to_double
from afflow._tools.constants import Constant
from afflow._tools.numerics import total
from afflow._tools.shapes import Shape, check_shape
from afflow.core.bijector import Bijector, of_one_event
from afflow.core.univariate import check_event, count_params, locate

_FEW = 8  # a standard deviation must exceed this many rounding errors of the mean


class Elementwise(Bijector):
    r"""A univariate at every coordinate, with free parameters for each coordinate.

    $$y_i = f(x_i; \theta_i), \qquad \log|\det J| = \sum_i \log|f'(x_i; \theta_i)|.$$

    Args:
        univariate: the scalar map $f$, with `context_shape == (P,)`.
        event_shape: the shape of an event, or the length of a vector. The parameters,
            `(*event_shape, P)`, start at zero: the identity.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.Elementwise(afflow.Affine(), 3).forward(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    is_elementwise = True

    def __init__(self, univariate: Bijector, event_shape: int | Shape):
        self.univariate = univariate
        self.event_shape = check_shape("event_shape", event_shape)
        check_event(univariate, self.event_shape)
        self.context_shape = None
        self.params = nnx.Param(jnp.zeros((*self.event_shape, count_params(univariate))))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._map(self.univariate.forward_and_log_det, x)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._map(self.univariate.inverse_and_log_det, y)

    def _map(self, f, x):
        for _ in self.event_shape:
            f = jax.vmap(f)
        x, log_dets = f(locate(self.univariate, x), self.params[...])
        return x, total(log_dets)


class LeakyReLU(Bijector):
    r"""A map of each coordinate with slope 1 above zero and another slope below.

    $$y_i = \max(x_i, 0) + a \min(x_i, 0), \qquad
    \log|\det J| = \log a \cdot \#\{i : x_i < 0\}.$$

    Args:
        event_shape: the shape of an event, or the length of a vector.
        slope: the slope $a > 0$ below zero.

    Raises:
        ValueError: unless `slope > 0`, and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.LeakyReLU(2, 0.5).forward(jnp.array([3.0, -4.0])).tolist()
        [3.0, -2.0]
    """

    is_elementwise = True

    def __init__(self, event_shape: int | Shape, slope: float = 0.01):
        check_positive(slope=slope)
        self.event_shape = check_shape("event_shape", event_shape)
        self.context_shape = None
        self.slope = float(slope)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._scaled(x, self.slope)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._scaled(y, 1 / self.slope)

    def _scaled(self, x, slope):
        slopes = jnp.where(x < 0, jnp.asarray(slope, x.dtype), jnp.ones_like(x))
        return slopes * x, total(jnp.log(slopes))


class Standardize(Bijector):
    r"""A fixed location and scale, from a standard flow to the units of the data.

    $$y = \mu + \sigma \odot x, \qquad \log|\det J| = \sum_i \log\sigma_i.$$

    Put it last in a `Chain`: the inverse turns data into z-scores. Its Jacobian is included, so
    log-densities stay in the units of the data.

    Args:
        mean: location $\mu$, `event_shape`.
        std: scale $\sigma > 0$, `event_shape`.

    Raises:
        ValueError: if the shapes differ, a number is not finite, or a scale is not above 8
            rounding errors of the location.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> data = jnp.array([[0.0, 10.0], [2.0, 30.0]])
        >>> afflow.Standardize.from_data(data).inverse(data[0]).tolist()
        [-1.0, -1.0]
    """

    is_elementwise = True

    has_units = True

    def __init__(self, mean: ArrayLike, std: ArrayLike):
        if np.shape(mean) != np.shape(std):
            raise ValueError(f"Expected mean and std alike, got {np.shape(mean)}, {np.shape(std)}.")
        exact_mean, exact_std = to_double("mean", mean), to_double("std", std)
        mend = "drop constant columns and non-finite rows"
        _check_scale(exact_mean, exact_std, np.finfo(np.float64).eps, mend)
        self.mean = Constant(cast("mean", exact_mean))
        self.std = Constant(cast("std", exact_std, is_scale=True))
        eps = jnp.finfo(self.std.dtype).eps
        mend = (
            "subtract a location in float64 first (a factory with data=x and "
            "columns=[afflow.Real(), ...] does it), or set jax_enable_x64"
        )
        _check_scale(exact_mean, exact_std, float(eps), mend)
        self.event_shape = self.mean.shape
        self.context_shape = None

    @staticmethod
    def from_data(x: ArrayLike) -> "Standardize":
        """Return the map with the mean and standard deviation over the rows of `x`."""
        rows = to_double("x", x)
        if rows.ndim < 1 or len(rows) == 0:
            raise ValueError(f"Expected rows (N, *event_shape) as x, got shape {rows.shape}.")
        mean = rows.mean(0)
        return Standardize(mean, (rows - mean).std(0))  # centred, so a large mean costs no digits

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        mean, std = self._as(x)
        return mean + std * x, total(jnp.log(self.std[...]))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        mean, std = self._as(y)
        return (y - mean) / std, -total(jnp.log(self.std[...]))

    def _as(self, x):
        return self.mean[...].astype(x.dtype), self.std[...].astype(x.dtype)


def _check_scale(mean: np.ndarray, std: np.ndarray, eps: float, mend: str) -> None:
    """Raise `ValueError` unless each `std` is finite and exceeds `_FEW * eps * abs(mean)`."""
    usable = np.isfinite(mean) & np.isfinite(std) & (std > _FEW * eps * np.abs(mean))
    if not usable.all():
        i = np.flatnonzero(~usable)
        raise ValueError(
            f"Expected finite means, and standard deviations above the rounding of the means "
            f"({_FEW} x {eps:.2g} x mean), got mean {mean.flat[i[0]]:.9g} and deviation "
            f"{std.flat[i[0]]:.3g} in coordinate {i[0]} (such coordinates: {i.tolist()}): "
            f"{mend}."
        )
