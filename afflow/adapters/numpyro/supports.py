"""Supports: the set that a bijector maps onto, as a constraint of NumPyro."""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint

from afflow._tools.shapes import Shape
from afflow.adapters.numpyro.parts import NumpyroDistribution
from afflow.bijectors.compose import Chain, Inverse
from afflow.bijectors.domains import Exp, Interval, Ordered, Positive, Power, Probit, Simplex, Tanh
from afflow.bijectors.embedding import Embedded
from afflow.core.bijector import Bijector
from afflow.distributions.standard import Uniform
from afflow.models.flow import Flow

_ONTO_A_DOMAIN = (Exp, Interval, Ordered, Positive, Power, Probit, Simplex, Tanh)


def spread(constraint: Constraint, shape: Shape) -> Constraint:
    """Return the constraint that holds at every coordinate of an event."""
    if constraint is constraints.real and len(shape) == 1:
        return constraints.real_vector
    return constraints.independent(constraint, len(shape)) if shape else constraint


def find_support(flow: Flow) -> Constraint:
    """Return the support of a flow, which its last bijector decides.

    Raises:
        ValueError: if the support is not known. The last bijector is then not a map onto a domain,
            but an earlier one is, or the base has a bounded support.
    """
    support = find_codomain(flow.bijector)
    if _is_real(support) and _has_domain(flow):
        raise ValueError(
            "Expected support=..., got a flow whose support is not known: it has a bounded base, "
            "or a map onto a domain that is not the last bijector."
        )
    return support


def find_codomain(bijector: Bijector) -> Constraint:
    """Return the set that the bijector maps onto: a domain, or the whole real space.

    Raises:
        ValueError: for a `Simplex`, whose set NumPyro has no constraint for.
    """
    if isinstance(bijector, Chain):
        return find_codomain(bijector.bijectors[-1])
    if isinstance(bijector, Inverse):
        return find_domain(bijector.bijector)
    if isinstance(bijector, Embedded):
        return find_codomain(bijector.bijector)
    return _find_image(bijector)


def find_domain(bijector: Bijector) -> Constraint:
    """Return the set that the bijector maps from: a domain, or the whole real space."""
    if isinstance(bijector, Chain):
        return find_domain(bijector.bijectors[0])
    if isinstance(bijector, Inverse):
        return find_codomain(bijector.bijector)
    if isinstance(bijector, Embedded):
        return find_domain(bijector.bijector)
    of_one = constraints.positive if isinstance(bijector, Power) else constraints.real
    return spread(of_one, bijector.event_shape)


def is_codomain_known(bijector: Bijector) -> bool:
    """Return whether each part of a chain maps from the whole set that the part before maps onto.

    After an `Exp`, for example, a `Reverse` does not map from the whole space. A part with maps of
    domains inside, such as a `Blockwise`, is not known.
    """
    parts = _list_parts(bijector)
    if any(map(_hides_a_domain, parts)):
        return False
    pairs = pairwise(parts)
    return all(_is_real(find_codomain(a)) or not _is_real(find_domain(b)) for a, b in pairs)


def is_domain_known(bijector: Bijector) -> bool:
    """Return whether each part of a chain maps onto the whole set that the next part maps from."""
    return is_codomain_known(Inverse(bijector))


def _list_parts(bijector: Bijector) -> list[Bijector]:
    """Return the parts that a bijector applies one after another."""
    if isinstance(bijector, Chain):
        return [part for inner in bijector.bijectors for part in _list_parts(inner)]
    if isinstance(bijector, Inverse):
        return [Inverse(part) for part in reversed(_list_parts(bijector.bijector))]
    return _list_parts(bijector.bijector) if isinstance(bijector, Embedded) else [bijector]


def _hides_a_domain(part: Bijector) -> bool:
    while isinstance(part, Inverse):
        part = part.bijector
    return not isinstance(part, _ONTO_A_DOMAIN) and _holds(part, _ONTO_A_DOMAIN)


def _holds(module: nnx.Module, kinds: type | tuple[type, ...]) -> bool:
    """Return whether a module is one of some kinds, or has one inside."""
    return any(isinstance(part, kinds) for _, part in nnx.iter_modules(module))


def _find_image(bijector):
    if isinstance(bijector, Simplex):
        raise ValueError("Expected support=..., got a Simplex: NumPyro has no constraint for it.")
    if isinstance(bijector, Ordered):
        return constraints.ordered_vector
    if isinstance(bijector, Interval | Probit):
        of_one = constraints.interval(bijector.low[...], bijector.high[...])
    elif isinstance(bijector, Tanh):
        of_one = constraints.interval(-jnp.ones(()), jnp.ones(()))
    else:
        is_positive = isinstance(bijector, Exp | Positive | Power)
        of_one = constraints.positive if is_positive else constraints.real
    return spread(of_one, bijector.event_shape)


def _is_real(support):
    inner = getattr(support, "base_constraint", support)
    return isinstance(inner, type(constraints.real))


def _has_domain(flow):
    foreign = [p for _, p in nnx.iter_modules(flow.base) if isinstance(p, NumpyroDistribution)]
    is_bounded = _holds(flow.base, Uniform) or not all(_is_real(part.support) for part in foreign)
    return is_bounded or _holds(flow.bijector, _ONTO_A_DOMAIN)
