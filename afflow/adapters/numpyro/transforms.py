"""A bijector as a transform of NumPyro."""

from typing import Any

import jax
from numpyro.distributions.constraints import Constraint
from numpyro.distributions.transforms import Transform

from afflow._tools.arguments import check_instance
from afflow._tools.calls import check_context
from afflow.adapters.events import run_forward, run_inverse
from afflow.adapters.numpyro.supports import (
    find_codomain,
    find_domain,
    is_codomain_known,
    is_domain_known,
)
from afflow.core.bijector import Bijector

_MEND = (
    "Expected {name}=..., got a chain whose {name} is not known: a part on the whole space stands "
    "beside a map of a domain."
)


class BijectorTransform(Transform):
    """A bijector as a transform of NumPyro: a pytree with the arrays of the bijector as leaves.

    `to_transform` builds it.
    """

    def __init__(
        self,
        bijector: Bijector,
        context: jax.Array | None,
        domain: Constraint,
        codomain: Constraint,
    ):
        self.bijector = bijector
        self.context = context
        self._domain = domain
        self._codomain = codomain

    @property
    def domain(self) -> Constraint:
        """The set that the bijector maps from."""
        return self._domain

    @property
    def codomain(self) -> Constraint:
        """The set that the bijector maps onto."""
        return self._codomain

    def __call__(self, x: Any) -> jax.Array:
        """Map events `(..., *event_shape)` from noise to data."""
        return self.call_with_intermediates(x)[0]

    def _inverse(self, y: Any) -> jax.Array:
        return run_inverse(self.bijector, y, self.context)[0]

    def call_with_intermediates(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """Map events as a call does. Return them and the log-determinants `(...)`."""
        return run_forward(self.bijector, x, self.context)

    def log_abs_det_jacobian(self, x: Any, y: Any, intermediates: Any = None) -> jax.Array:
        """Return the log-determinants `(...)` at `x`.

        Args:
            x: events `(..., *event_shape)`.
            y: the mapped events, not used.
            intermediates: the log-determinants that `call_with_intermediates` returned, if any.
        """
        return self.call_with_intermediates(x)[1] if intermediates is None else intermediates

    def tree_flatten(self):
        """Return the bijector, its context and its ends as children of the pytree."""
        names = ("bijector", "context", "_domain", "_codomain")
        return tuple(getattr(self, name) for name in names), (names, {})

    def __hash__(self) -> int:
        return id(self)


def to_transform(
    bijector: Bijector,
    context: jax.Array | None = None,
    *,
    domain: Constraint | None = None,
    codomain: Constraint | None = None,
) -> BijectorTransform:
    r"""Return a bijector as a transform of NumPyro, $y = f(x; h)$.

    The transform takes leading axes and is compiled. Its log-determinant is one number per event.

    Needs NumPyro (extra `numpyro`).

    Args:
        bijector: the bijector.
        context: contexts $h$, `(..., *context_shape)`, of a bijector with a context.
        domain: the set that the bijector maps from, by default from its first layer.
        codomain: the set that the bijector maps onto, by default from its last layer.

    Raises:
        ValueError: for a context that is missing, not wanted or of another shape, or a domain or
            codomain that is not known.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> exp = afflow.adapters.to_transform(afflow.bijectors.Exp(2))
        >>> x = jnp.array([[0.0, 1.0], [2.0, 3.0]])
        >>> exp.log_abs_det_jacobian(x, exp(x)).tolist()
        [1.0, 5.0]
    """
    check_instance("bijector", bijector, Bijector)
    if domain is None:
        if not is_domain_known(bijector):
            raise ValueError(_MEND.format(name="domain"))
        domain = find_domain(bijector)
    if codomain is None:
        if not is_codomain_known(bijector):
            raise ValueError(_MEND.format(name="codomain"))
        codomain = find_codomain(bijector)
    return BijectorTransform(bijector, check_context(bijector, context), domain, codomain)
