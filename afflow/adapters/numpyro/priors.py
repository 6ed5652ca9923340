"""Distributions of NumPyro as priors of simulation-based inference."""

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from afflow._tools.arguments import check_instance
from afflow._tools.shapes import Shape
from afflow.adapters.numpyro.parts import from_numpyro
from afflow.bijectors.compose import Chain
from afflow.bijectors.domains import Exp, Probit
from afflow.bijectors.elementwise import Standardize
from afflow.bijectors.permutations import Permutation
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.models.flow import Flow
from afflow.sbi.priors import constrain

_REAL = type(constraints.real), type(constraints.real_vector)
_INTERVAL = type(constraints.interval(0.0, 1.0)), type(constraints.unit_interval)
_ABOVE = type(constraints.positive), type(constraints.greater_than(0.0))
_FROM = type(constraints.nonnegative), type(constraints.greater_than_eq(0.0))


def prior_from_numpyro(distribution: dist.Distribution, dim: int | None = None) -> Flow:
    """Return a distribution of NumPyro over vectors as a prior, as `afflow.sbi.constrain` does.

    Batch axes of the distribution become axes of the event, with independent coordinates.

    Needs NumPyro (extra `numpyro`).

    Args:
        distribution: the distribution.
        dim: the length of the vector; by default the length that the distribution has.

    Raises:
        ValueError: for a distribution that is discrete or not over vectors, or whose support is
            not the reals, an interval or the numbers above a bound.

    Example:
        >>> import afflow, jax.numpy as jnp, numpyro.distributions as dist
        >>> prior = afflow.adapters.prior_from_numpyro(dist.Gamma(2.0, 1.0), 1)
        >>> round(prior.log_prob(jnp.ones(1)).item(), 4), prior.log_prob(-jnp.ones(1)).item()
        (-1.0, -inf)
    """
    check_instance("distribution", distribution, dist.Distribution)
    part = from_numpyro(distribution, dim)
    assert isinstance(part, Distribution)
    if len(part.event_shape) != 1:
        raise ValueError(
            f"Expected a distribution over vectors, got event_shape {part.event_shape}: pass dim, "
            f"prior_from_numpyro({type(distribution).__name__}(...), 1) say."
        )
    return constrain(part, _find_map(distribution.support, part.event_shape))


def _find_map(support: constraints.Constraint | None, shape: Shape) -> Bijector:
    """Return a bijector from the reals onto a support."""
    if isinstance(support, type(constraints.independent(constraints.real, 1))):
        return _find_map(support.base_constraint, shape)
    bounds: Any = support  # type checkers do not know the bounds
    if isinstance(support, _REAL):
        return Permutation(range(*shape))
    if isinstance(support, _INTERVAL):
        ends = (jnp.broadcast_to(end, shape) for end in (bounds.lower_bound, bounds.upper_bound))
        return Probit(*ends)
    if isinstance(support, (*_ABOVE, *_FROM)):
        low = jnp.broadcast_to(jnp.asarray(bounds.lower_bound, float), shape)
        return Chain([Exp(shape), Standardize(low, jnp.ones(shape))])
    raise ValueError(
        f"Expected a support that is the reals, an interval or above a bound, got {support}: pass "
        f"a bijector onto it to afflow.sbi.constrain."
    )
