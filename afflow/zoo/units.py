"""The units of data: a location and a scale for each column, and the weight of its tails."""

import jax.numpy as jnp
import numpy as np

from afflow.bijectors.elementwise import Elementwise, Standardize
from afflow.core.bijector import Bijector
from afflow.univariates.heavy_tails import HeavyTails, tail_indices

_HEAVY = 0.2  # above this tail index, the mean and standard deviation are poor guides
_ONE_SIGMA = 0.8413447460685429  # probability below the mean plus one standard deviation


def make_units(x: np.ndarray) -> list[Bijector]:
    r"""Return the maps from a standard flow to the units of some data, in forward order.

    A column is standardised by its mean and standard deviation. A column with a tail index above
    0.2 (see `HeavyTails`) is heavy: it is standardised by its median and its 16 % and 84 %
    quantiles. If any column is heavy, `HeavyTails` acts on every column. For heavy columns it
    starts from the estimated indices, for other columns close to the identity.

    Args:
        x: `(N, D)`, float64.
    """
    indices = np.array([tail_indices(column) for column in x.T])  # (D, 2)
    is_heavy = indices.max(1) > _HEAVY
    if not is_heavy.any():
        return [Standardize.from_data(x)]
    low, middle, high = np.quantile(x, [1 - _ONE_SIGMA, 0.5, _ONE_SIGMA], axis=0)
    deviation = (high - low) / 2 * np.exp(-indices.mean(1) / 2)
    is_heavy &= deviation > 0
    mean = x.mean(0)
    tails = Elementwise(HeavyTails(), x.shape[1])
    start = np.where(is_heavy[:, None], HeavyTails.params_of(indices), 0.0)
    tails.params[...] = jnp.asarray(start, tails.params[...].dtype)
    location = np.where(is_heavy, middle, mean)
    scale = np.where(is_heavy, deviation, (x - mean).std(0))
    return [tails, Standardize(location, scale)]
