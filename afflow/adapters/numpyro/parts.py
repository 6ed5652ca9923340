"""Distributions and transforms of NumPyro as parts of a flow."""

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import Transform, biject_to

from afflow._tools.numerics import total
from afflow._tools.shapes import Shape, check_shape
from afflow.adapters.held import Held
from afflow.core.bijector import Bijector, of_one_event
from afflow.core.distribution import Distribution


class NumpyroDistribution(Distribution):
    r"""A distribution of NumPyro as the base of a flow.

    $$\log p(x) = \sum_b \log p_b(x_b)$$ over the batch axes $b$ of the distribution, which become
    axes of the event. The arrays of the distribution are not trained. `from_numpyro` builds it.
    """

    has_units = True

    def __init__(self, distribution: dist.Distribution):
        self.held = Held(distribution)
        self.event_shape = distribution.batch_shape + distribution.event_shape
        self.context_shape = None

    @property
    def support(self) -> Constraint:
        """The set where the density is positive."""
        return self.held.build().support

    @of_one_event
    def log_prob(self, x, context=None):
        held = self.held.build(x)
        inside = held.support(x).all() | jnp.isnan(x).any()  # NumPyro leaves this to the user
        x = jnp.where(inside, x, held.support.feasible_like(x))
        return jnp.where(inside, total(jnp.asarray(held.log_prob(x))), -jnp.inf)

    def sample(self, key, context=None):
        return self.held.build().sample(key)


class NumpyroBijector(Bijector):
    """A transform of NumPyro as a bijector. The arrays of the transform are not trained.

    `from_numpyro` builds it.
    """

    def __init__(self, transform: Transform, event_shape: Shape):
        self.held = Held(transform)
        self.event_shape = event_shape
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        transform = self.held.build(x)
        y, intermediates = transform.call_with_intermediates(x)
        return y, total(jnp.asarray(transform.log_abs_det_jacobian(x, y, intermediates)))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        transform = self.held.build(y)
        x = transform.inv(y)
        return x, -total(jnp.asarray(transform.log_abs_det_jacobian(x, y)))


def from_numpyro(
    source: dist.Distribution | Transform, event_shape: int | Shape | None = None
) -> Distribution | Bijector:
    r"""Return a distribution of NumPyro as a base, or a transform of NumPyro as a bijector.

    Batch axes of the distribution become axes of the event, with independent coordinates:
    $\log p(x) = \sum_b \log p_b(x_b)$. The log-determinant of the transform is summed over the
    axes of the event likewise. The arrays of the source are not trained.

    Needs NumPyro (extra `numpyro`).

    Args:
        source: the distribution or the transform.
        event_shape: the shape of an event, or the length of a vector. A transform needs it. A
            distribution is expanded to it, and by default keeps its own shape.

    Raises:
        ValueError: for a discrete distribution, a source that changes the number of coordinates
            (such as a `Dirichlet`), or an `event_shape` that is missing or does not fit.

    Example:
        >>> import afflow, jax.numpy as jnp, numpyro.distributions as dist
        >>> base = afflow.adapters.from_numpyro(dist.Gumbel(0.0, 1.0), 2)
        >>> shift = dist.transforms.AffineTransform(1.0, 2.0)
        >>> flow = afflow.Flow(base, afflow.adapters.from_numpyro(shift, 2))
        >>> round(flow.log_prob(jnp.ones(2)).item(), 4)
        -3.3863
    """
    shape = None if event_shape is None else check_shape("event_shape", event_shape)
    if isinstance(source, Transform):
        return _take_transform(source, shape)
    if isinstance(source, dist.Distribution):
        return _take_distribution(source, shape)
    raise ValueError(
        f"Expected a distribution or a transform of NumPyro, got {type(source).__name__}."
    )


def _take_transform(transform: Transform, shape: Shape | None) -> NumpyroBijector:
    if shape is None:
        raise ValueError("Expected event_shape for a transform, got None.")
    least = transform.domain.event_dim
    if len(shape) < least or transform.forward_shape(shape) != shape:
        raise ValueError(
            f"Expected a transform that keeps events of shape {shape}, got "
            f"{type(transform).__name__}."
        )
    return NumpyroBijector(transform, shape)


def _take_distribution(source: dist.Distribution, shape: Shape | None) -> NumpyroDistribution:
    own = source.batch_shape + source.event_shape
    shape = own if shape is None else shape
    if len(shape) < len(own) or shape[len(shape) - len(own) :] != own:
        raise ValueError(f"Expected an event_shape that ends in {own}, got {shape}.")
    if source.is_discrete or _changes_shape(source):
        raise ValueError(
            f"Expected a distribution with a density over all coordinates of the event, got "
            f"{type(source).__name__}."
        )
    return NumpyroDistribution(source.expand(shape[: len(shape) - source.event_dim]))


def _changes_shape(source: dist.Distribution) -> bool:
    """Return whether the support has fewer free coordinates than the event."""
    shape = source.batch_shape + source.event_shape  # bounds of the support may have batch axes
    return biject_to(source.support).inverse_shape(shape) != shape
