"""Which distributions of distrax and TFP have a density over all coordinates of an event."""

from collections.abc import Iterator
from typing import Any

import distrax
import jax.numpy as jnp
from tensorflow_probability.substrates import jax as tfp

_AROUND = ("distribution", "components_distribution", "components")
_WITHOUT_DENSITY = (
    distrax.Clipped,
    distrax.Deterministic,
    distrax.Dirichlet,
    distrax.Multinomial,
    distrax.OneHotCategorical,
    distrax.Quantized,
    tfp.distributions.Deterministic,
    tfp.distributions.QuantizedDistribution,
    tfp.distributions.VectorDeterministic,
)


def has_density(source: Any) -> bool:
    """Return whether a distribution has a density over all coordinates of an event.

    A discrete distribution has none, nor has a distribution on a simplex or a sphere. A
    distribution around others, such as a mixture, has a density if they all have one.
    """
    return all(map(_has_density, _find_parts(source)))


def _find_parts(source: Any) -> Iterator[Any]:
    """Yield the distribution, or the innermost distributions that it is built around."""
    around = [getattr(source, name) for name in _AROUND if getattr(source, name, None) is not None]
    if not around or isinstance(source, _WITHOUT_DENSITY):
        yield source
    for inner in around:
        for part in inner if isinstance(inner, list | tuple) else [inner]:
            yield from _find_parts(part)


def _has_density(source: Any) -> bool:
    is_array = all(isinstance(size, int) for size in source.event_shape)  # not for a joint one
    if isinstance(source, _WITHOUT_DENSITY) or not is_array:
        return False
    return jnp.issubdtype(source.dtype, jnp.floating) and _has_free_coordinates(source)


def _has_free_coordinates(source: Any) -> bool:
    """Return whether TFP's map onto the support keeps the number of coordinates.

    TFP has no map, `None`, for a discrete distribution. A distribution of distrax, and a class of
    TFP that leaves the map to its users, count as free.
    """
    try:
        to_support = source.experimental_default_event_space_bijector()
    except (AttributeError, NotImplementedError):
        return True
    shape = source.event_shape
    return to_support is not None and to_support.inverse_event_shape(shape) == shape
