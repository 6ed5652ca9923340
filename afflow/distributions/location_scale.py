"""A distribution with a location and a scale, and the multivariate normal."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_instance
from afflow._tools.arrays import cast, to_double
from afflow._tools.numerics import inverse_softplus, softplus_above_zero, widen
from afflow._tools.shapes import check_shape
from afflow.core.bijector import of_one_event
from afflow.core.distribution import Distribution
from afflow.distributions.standard import Normal


class LocationScale(Distribution):
    r"""A distribution with a learned location and scale at every coordinate.

    $$\log p(x) = \log p_0\Big(\frac{x - \mu}{\sigma}\Big) - \sum_i \log\sigma_i.$$

    Args:
        base: the distribution $p_0$.
        loc: the initial location $\mu$, `event_shape`.
        scale: the initial scale $\sigma > 0$, `event_shape`.

    Raises:
        ValueError: for other shapes, or scales that are not positive and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> loc, scale = jnp.array([1.0]), jnp.array([2.0])
        >>> laplace = afflow.distributions.Laplace(1)
        >>> base = afflow.distributions.LocationScale(laplace, loc, scale)
        >>> round(base.log_prob(jnp.array([3.0])).item(), 4)
        -2.3863
    """

    has_units = True

    def __init__(self, base: Distribution, loc: ArrayLike, scale: ArrayLike):
        check_instance("base", base, Distribution)
        shapes = np.shape(loc), np.shape(scale)
        if shapes != (base.event_shape, base.event_shape):
            raise ValueError(f"Expected loc and scale {base.event_shape}, got {shapes}.")
        loc, scale = to_double("loc", loc), to_double("scale", scale)
        if not (np.isfinite(loc) & np.isfinite(scale) & (scale > 0)).all():
            raise ValueError(f"Expected finite loc and positive scale, got {loc}, {scale}.")
        self.base = base
        self.event_shape, self.context_shape = base.event_shape, base.context_shape
        self.loc = nnx.Param(cast("loc", loc))
        self.raw_scale = nnx.Param(inverse_softplus(cast("scale", scale, is_scale=True)))

    @property
    def scale(self) -> jax.Array:
        """The scale, `event_shape`."""
        return softplus_above_zero(self.raw_scale[...])

    @of_one_event
    def log_prob(self, x, context=None):
        x = widen(x)
        loc, scale = self.loc[...].astype(x.dtype), self.scale.astype(x.dtype)
        return self.base.log_prob((x - loc) / scale, context) - jnp.sum(jnp.log(scale))

    def sample(self, key, context=None):
        return self.loc[...] + self.scale * self.base.sample(key, context)


def DiagonalNormal(loc: ArrayLike, scale: ArrayLike) -> LocationScale:  # noqa: N802
    """Return `LocationScale` of `Normal`: a normal with learned means and standard deviations.

    Args:
        loc: the initial means, `event_shape`.
        scale: the initial standard deviations, `event_shape`.

    Raises:
        ValueError: if the shapes differ, or a scale is not positive and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> base = afflow.distributions.DiagonalNormal(jnp.ones(2), jnp.full(2, 3.0))
        >>> round(base.log_prob(jnp.ones(2)).item(), 4)
        -4.0351
    """
    return LocationScale(Normal(np.shape(loc)), loc, scale)


class MultivariateNormal(Distribution):
    r"""The normal with a learned mean and a learned full covariance $\Sigma = L L^\top$.

    $$\log p(x) = -\tfrac12 \lVert L^{-1}(x - \mu)\rVert^2 - \sum_i \log L_{ii}
    - \tfrac{D}{2}\log 2\pi.$$

    The Cholesky factor `L` is lower triangular with a positive diagonal.

    Args:
        mean: the initial mean, `(D,)`.
        covariance: the initial covariance, `(D, D)`, positive definite.

    Raises:
        ValueError: for other shapes, or a covariance that is not positive definite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> base = afflow.distributions.MultivariateNormal(jnp.zeros(2), 4 * jnp.eye(2))
        >>> round(base.log_prob(jnp.zeros(2)).item(), 4)
        -3.2242
    """

    has_units = True

    def __init__(self, mean: ArrayLike, covariance: ArrayLike):
        mean, covariance = to_double("mean", mean), to_double("covariance", covariance)
        dim = mean.size
        if mean.shape != (dim,) or covariance.shape != (dim, dim):
            raise ValueError(
                f"Expected mean (D,) and covariance (D, D), got {mean.shape} and "
                f"{covariance.shape}."
            )
        self.event_shape, self.context_shape = check_shape("event_shape", dim), None
        if not np.isfinite(mean).all():
            raise ValueError(f"Expected a finite mean, got {mean}.")
        exact = _cholesky(covariance)
        cast("the diagonal of the Cholesky factor", np.diag(exact), is_scale=True)
        factor = cast("the Cholesky factor", exact)
        self.mean = nnx.Param(cast("mean", mean))
        self.raw_factor = nnx.Param(_set_diagonal(factor, inverse_softplus(jnp.diag(factor))))

    @staticmethod
    def from_data(x: ArrayLike) -> "MultivariateNormal":
        """Return a normal with the mean and covariance of the rows of `x` `(N, D)`."""
        rows = to_double("x", x)
        with np.errstate(over="ignore", invalid="ignore"):  # the constructor raises an error
            covariance = np.cov(rows, rowvar=False, bias=True).reshape(2 * rows.shape[1:])
        return MultivariateNormal(rows.mean(0), covariance)

    @property
    def factor(self) -> jax.Array:
        """The Cholesky factor `L`, `(D, D)`."""
        raw = self.raw_factor[...]
        return _set_diagonal(jnp.tril(raw), softplus_above_zero(jnp.diag(raw)))

    @of_one_event
    def log_prob(self, x, context=None):
        x = widen(x)
        mean, factor = self.mean[...].astype(x.dtype), self.factor.astype(x.dtype)
        z = jax.scipy.linalg.solve_triangular(factor, x - mean, lower=True)
        return Normal(self.event_shape).log_prob(z) - jnp.sum(jnp.log(jnp.diag(factor)))

    def sample(self, key, context=None):
        return self.mean[...] + self.factor @ Normal(self.event_shape).sample(key)


def _set_diagonal(matrix: jax.Array, diagonal: jax.Array) -> jax.Array:
    return jnp.tril(matrix, -1) + jnp.diag(diagonal)


def _cholesky(covariance: np.ndarray) -> np.ndarray:
    """Return the Cholesky factor in float64. Raise `ValueError` unless clearly positive definite.

    All tests use correlations, so they do not depend on units. A coordinate counts as dependent
    if its variance given the other coordinates is within rounding of zero.
    """
    try:
        variances = np.diag(covariance)
        if not (np.isfinite(covariance).all() and (variances > 0).all()):
            raise np.linalg.LinAlgError("not finite, or without variance")
        scale = np.sqrt(variances)
        correlation = covariance / scale[:, None] / scale
        if not np.allclose(correlation, correlation.T, rtol=0, atol=1e-6):
            raise np.linalg.LinAlgError("it is not symmetric")
        factor = np.linalg.cholesky((correlation + correlation.T) / 2)
        if (np.square(np.diag(factor)) < 8 * len(factor) * np.finfo(np.float64).eps).any():
            raise np.linalg.LinAlgError("a coordinate depends on the others")
        return scale[:, None] * factor
    except np.linalg.LinAlgError as error:
        raise ValueError(
            f"Expected a positive definite covariance ({error}): drop constant or "
            f"linearly dependent columns."
        ) from error
