"""Distributions and bijectors of distrax and of TensorFlow Probability as parts of a flow."""

from typing import Any

import distrax
import jax
import jax.numpy as jnp
from tensorflow_probability.substrates import jax as tfp

from afflow._tools.numerics import total
from afflow._tools.shapes import Shape, check_shape
from afflow.adapters.distrax.densities import has_density
from afflow.adapters.held import Held
from afflow.core.bijector import Bijector, of_one_event
from afflow.core.distribution import Distribution

_BIJECTORS = (distrax.Bijector, tfp.bijectors.Bijector)
_DISTRIBUTIONS = (distrax.Distribution, tfp.distributions.Distribution)


class DistraxDistribution(Distribution):
    r"""A distribution of distrax or TFP as the base of a flow.

    $$\log p(x) = \sum_b \log p_b(x_b)$$ over the batch axes $b$ of the distribution, which become
    axes of the event. The arrays of the distribution are not trained. `from_distrax` builds it.
    """

    has_units = True

    def __init__(self, distribution: Any, event_shape: Shape):
        self.held = Held(distribution)
        self.event_shape = event_shape
        self.context_shape = None

    @of_one_event
    def log_prob(self, x, context=None):
        return total(jnp.asarray(self.held.build(x).log_prob(x)))

    def sample(self, key, context=None):
        source = self.held.build()
        extra = len(self.event_shape) - len(_find_shape(source))
        return source.sample(seed=key, sample_shape=self.event_shape[:extra])


class DistraxBijector(Bijector):
    """A bijector of distrax or TFP as a bijector here. The arrays of the source are not trained.

    `from_distrax` builds it.
    """

    def __init__(self, bijector: Any, event_shape: Shape):
        self.held = Held(bijector)
        self.is_elementwise = distrax.as_bijector(bijector).event_ndims_in == 0
        self.event_shape = event_shape
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        y, log_dets = distrax.as_bijector(self.held.build(x)).forward_and_log_det(x)
        return y, total(log_dets)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        x, log_dets = distrax.as_bijector(self.held.build(y)).inverse_and_log_det(y)
        return x, total(log_dets)


def from_distrax(source: Any, event_shape: int | Shape | None = None) -> Distribution | Bijector:
    r"""Return a distribution of distrax or TFP as a base, or a bijector of theirs as a bijector.

    TFP is TensorFlow Probability on JAX, `tensorflow_probability.substrates.jax`.

    A bijector over fewer axes than the event acts on each slice: `distrax.Tanh` on each
    coordinate. Its log-determinants are summed. Batch axes of a distribution become axes of the
    event, with independent coordinates: $\log p(x) = \sum_b \log p_b(x_b)$. The arrays of the
    source are not trained.

    Needs distrax (extra `distrax`).

    Args:
        source: the distribution or the bijector.
        event_shape: the shape of an event, or the length of a vector. By default, an elementwise
            bijector has the shape of its arrays, and a distribution keeps its own shape. Any other
            bijector needs the argument.

    Raises:
        ValueError: for a discrete distribution, a source that changes the number of coordinates
            (such as a `Dirichlet`), or an `event_shape` that is missing or does not fit.

    Example:
        >>> import afflow, distrax, jax.numpy as jnp
        >>> tanh = afflow.adapters.from_distrax(distrax.Tanh(), 2)
        >>> shift = afflow.Standardize(jnp.array([1.0, 2.0]), jnp.ones(2))
        >>> afflow.Chain([tanh, shift]).forward(jnp.zeros(2)).tolist()
        [1.0, 2.0]
        >>> base = afflow.adapters.from_distrax(distrax.Gumbel(0.0, 1.0), 2)
        >>> round(afflow.Flow(base, shift).log_prob(jnp.array([1.0, 2.0])).item(), 4)
        -2.0
    """
    shape = None if event_shape is None else check_shape("event_shape", event_shape)
    if isinstance(source, _BIJECTORS):
        return _take_bijector(source, shape)
    if isinstance(source, _DISTRIBUTIONS):
        return _take_distribution(source, shape)
    raise ValueError(
        f"Expected a distribution or a bijector of distrax or TFP, got {type(source).__name__}."
    )


def _take_bijector(source: Any, shape: Shape | None) -> DistraxBijector:
    shape = _derive_shape(source) if shape is None else shape
    bijector = DistraxBijector(source, shape)
    x = jnp.zeros(shape)
    try:
        y, _ = jax.eval_shape(lambda bijector: bijector.forward_and_log_det(x), bijector)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a bijector that runs under jax.jit on events of shape {shape}, got "
            f"{type(source).__name__}: {error}"
        ) from error
    if y.shape != shape:
        raise ValueError(
            f"Expected a bijector that keeps events of shape {shape}, got {type(source).__name__}, "
            f"which returns shape {y.shape}."
        )
    return bijector


def _derive_shape(source: Any) -> Shape:
    """Return the shape that the arrays of an elementwise bijector give to a scalar."""
    name, bijector = type(source).__name__, distrax.as_bijector(source)
    shape = () if bijector.event_ndims_in else jax.eval_shape(bijector.forward, jnp.zeros(())).shape
    if not shape:
        raise ValueError(
            f"Expected event_shape for {name}, whose arrays do not give the shape of an event: "
            f"from_distrax({name}(...), 2), say."
        )
    return shape


def _take_distribution(source: Any, shape: Shape | None) -> DistraxDistribution:
    if not has_density(source):
        raise ValueError(
            f"Expected a distribution with a density over all coordinates of the event, got "
            f"{type(source).__name__}."
        )
    own = _find_shape(source)
    shape = own if shape is None else shape
    if len(shape) < len(own) or shape[len(shape) - len(own) :] != own:
        raise ValueError(f"Expected an event_shape that ends in {own}, got {shape}.")
    return DistraxDistribution(source, shape)


def _find_shape(source: Any) -> Shape:
    return (*source.batch_shape, *source.event_shape)
