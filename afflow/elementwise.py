"""Maps that act on each coordinate by itself."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow.bijector import Bijector, Shape, checked_shape, num_params, of_one_event, total
from afflow.univariate.per_dimension import check_places, located


class Elementwise(Bijector):
    r"""A univariate at every coordinate, with free parameters of its own.

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

    def __init__(self, univariate: Bijector, event_shape: int | Shape):
        self.univariate = univariate
        self.event_shape = checked_shape("event_shape", event_shape)
        check_places(univariate, self.event_shape)
        self.context_shape = None
        self.params = nnx.Param(jnp.zeros((*self.event_shape, *num_params(univariate))))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._map(self.univariate.forward_and_log_det, x)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._map(self.univariate.inverse_and_log_det, y)

    def _map(self, f, x):
        for _ in self.event_shape:
            f = jax.vmap(f)
        x, log_dets = f(located(self.univariate, x), self.params[...])
        return x, total(log_dets)


class Constant(nnx.Variable):
    """An array that belongs to a module but is not trained.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> units = afflow.Standardize(jax.numpy.zeros(2), jax.numpy.ones(2))
        >>> len(jax.tree.leaves(nnx.state(units, nnx.Param)))
        0
        >>> len(jax.tree.leaves(nnx.state(units, afflow.Constant)))
        2
    """


def checked_ends(low: ArrayLike, high: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Return the ends of intervals as float arrays; `ValueError` unless finite and in order."""
    ends = jnp.asarray(low, float), jnp.asarray(high, float)
    if not (np.isfinite(ends[0]).all() and np.isfinite(ends[1]).all() and np.less(*ends).all()):
        raise ValueError(f"Expected finite ends with low < high, got {low} and {high}.")
    return ends


class Standardize(Bijector):
    r"""Fixed location and scale, so that data in its own units meets a standard flow.

    $$y = \mu + \sigma \odot x, \qquad \log|\det J| = \sum_i \log\sigma_i.$$

    It stands last in a `Chain`: the inverse turns data into z-scores, and its Jacobian
    is counted, so log-densities stay in the units of the data.

    Args:
        mean: location $\mu$, `event_shape`.
        std: scale $\sigma > 0$, `event_shape`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> data = jnp.array([[0.0, 10.0], [2.0, 30.0]])
        >>> afflow.Standardize.from_data(data).inverse(data[0]).tolist()
        [-1.0, -1.0]
    """

    def __init__(self, mean: jax.Array, std: jax.Array):
        self.mean, self.std = Constant(jnp.asarray(mean)), Constant(jnp.asarray(std))
        if self.mean.shape != self.std.shape:
            raise ValueError(f"Expected mean and std alike, got {mean.shape}, {std.shape}.")
        usable = np.isfinite(mean) & np.isfinite(std) & (np.asarray(std) > 0)
        if not usable.all():
            bad = np.flatnonzero(~usable).tolist()
            raise ValueError(
                f"Expected finite means and positive, finite standard deviations, got other "
                f"values in coordinates {bad}: drop constant columns and non-finite rows."
            )
        self.event_shape = self.mean.shape
        self.context_shape = None

    @staticmethod
    def from_data(x: jax.Array) -> "Standardize":
        """Standardise by the mean and standard deviation over the rows of `x`."""
        rows = np.asarray(x, np.float64)
        return Standardize(jnp.asarray(rows.mean(0)), jnp.asarray(rows.std(0)))

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
