"""The density of the first coordinates of an event, with the rest integrated out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.numerics import total
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.core.table import Table
from afflow.distributions.standard import Normal, Uniform


def check_triangular(base: Distribution, bijector: Bijector) -> None:
    """Raise `ValueError` unless the first coordinates of a flow have a density in closed form."""
    if not isinstance(base, Normal | Uniform):
        raise ValueError(f"Expected a Normal or Uniform base, got {type(base).__name__}.")
    if isinstance(bijector, Table):
        raise ValueError("Expected a flow without columns=: prefixes of tables are not supported.")
    if bijector.noise_order is None:
        raise ValueError(
            f"Expected layers that keep the order of the coordinates (MaskedAutoregressive, BNAF, "
            f"Triangular, elementwise ones), got others in\n{bijector}\nUse afflow.made, or one "
            f"layer with the observed coordinates first."
        )
    if len(bijector.event_shape) != 1:
        raise ValueError(f"Expected a flow over vectors, got event_shape {bijector.event_shape}.")


def check_missing_last(missing: np.ndarray) -> None:
    """Raise `ValueError` if a row has an observed value after a missing one.

    Args:
        missing: booleans `(..., D)`, in the order of the model.
    """
    bad = np.flatnonzero((missing[..., :-1] & ~missing[..., 1:]).any(-1))
    if bad.size:
        raise ValueError(
            f"Expected missing values at the end of the order, got an observed one after a "
            f"missing one in row {bad[0]}: use an order-agnostic model, say zoo.deep_nade."
        )


def compute_marginal(
    base: Normal | Uniform,
    bijector: Bijector,
    x: jax.Array,
    observed: Any,
    context: jax.Array | None,
    *,
    least: int = 0,
) -> jax.Array:
    """Return `log p(x) - log p(rest | observed)`, which is equal for every rest.

    The cost is about one event of sampling and `D + 1 - least` densities.

    Args:
        base: the distribution of the noise.
        bijector: a lower triangular map over vectors.
        x: one event `(D,)`; finite also where it is not observed.
        observed: booleans `(D,)`, with all observed coordinates first.
        context: one context.
        least: a number of coordinates that are observed in every event.
    """
    middle = find_middle(base)
    whole = complete(bijector, x, observed, middle, context)
    x = jnp.where(observed, x, jax.lax.stop_gradient(whole))
    z, log_det = bijector.inverse_and_log_det(x, context)
    rest = np.arange(least, len(x))
    places = np.array(bijector.noise_order)[rest]

    def slope(direction, place):
        return jax.jvp(lambda x: bijector.inverse(x, context), (x,), (direction,))[1][place]

    slopes = jax.vmap(slope)(jnp.eye(len(x), dtype=x.dtype)[rest], places)
    # The slope of an observed coordinate far out may be zero. Its logarithm has no gradient.
    slopes = jnp.where(observed[rest], 1, slopes)
    terms = base.log_probs(z)[places] + jnp.log(jnp.abs(slopes))
    conditional = total(jnp.where(observed[rest], 0, terms))
    return base.log_prob(z) + log_det - conditional


def complete(
    bijector: Bijector, x: jax.Array, observed: Any, free: jax.Array, context: jax.Array | None
) -> jax.Array:
    """Compute an event `(D,)` from its observed coordinates, and noise `free` `(D,)` for the rest.

    The observed coordinates determine as many entries of the noise. These replace the entries of
    `free`.
    """
    z = bijector.inverse(x, context)
    known = jnp.zeros(len(x), bool).at[np.array(bijector.noise_order)].set(observed)
    return bijector.forward(jnp.where(known, z, free.astype(z.dtype)), context)


def find_middle(base: Normal | Uniform) -> jax.Array:
    """Return the median of each coordinate of a base."""
    if isinstance(base, Uniform):
        return (base.low[...] + base.high[...]) / 2
    return jnp.zeros(base.event_shape)
