"""The univariate: an invertible map of one number, with a vector of parameters."""

from typing import Any

import jax

from afflow._tools.arguments import check_instance
from afflow._tools.shapes import Shape
from afflow.core.bijector import Bijector


class Univariate(Bijector):
    r"""A monotone map of one number, $y = f(x; \theta)$, with $P$ parameters $\theta$.

    A univariate is a bijector whose event is a scalar and whose context is the parameter vector
    `(P,)`. `MaskedAutoregressive`, `Coupling` and `Elementwise` apply one univariate to every
    coordinate. The outputs of networks start near zero. Zero parameters must therefore give the
    identity, or a map close to the identity.

    Args:
        num_params: the number of parameters `P`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> class Shift(afflow.univariates.Univariate):
        ...     def __init__(self):
        ...         super().__init__(num_params=1)
        ...     def forward_and_log_det(self, x, context=None):
        ...         return x + context[0], jnp.zeros_like(x)
        ...     def inverse_and_log_det(self, y, context=None):
        ...         return y - context[0], jnp.zeros_like(y)
        >>> layer = afflow.Elementwise(Shift(), 3)
        >>> layer.params.shape
        (3, 1)
    """

    def __init__(self, num_params: int):
        self.event_shape = ()
        self.context_shape = (num_params,)

    def locate(self, x: jax.Array) -> Any:
        """Return the coordinates `x` in the form that the methods take, one entry per coordinate.

        The default returns `x`. `PerDimension` adds the index of each coordinate's univariate.
        """
        return x

    def check_event(self, event_shape: Shape) -> None:
        """Raise `ValueError` if the univariate cannot act on every coordinate of an event."""


def count_params(univariate: Any) -> int:
    """Return the number of parameters `P` of a univariate.

    Any bijector of a scalar with a parameter vector is accepted, such as a `Chain` of two
    univariates.

    Raises:
        ValueError: if `univariate` is not a bijector of a scalar with a parameter vector.
    """
    check_instance("univariate", univariate, Bijector)
    shape = univariate.context_shape
    if univariate.event_shape != () or shape is None or len(shape) != 1:
        raise ValueError(
            f"Expected a univariate (event_shape (), context_shape (P,)), got "
            f"event_shape {univariate.event_shape}, context_shape {shape}."
        )
    return shape[0]


def check_event(univariate: Bijector, event_shape: Shape) -> None:
    """Raise `ValueError` if a univariate cannot act on every coordinate of an event."""
    if isinstance(univariate, Univariate):
        univariate.check_event(event_shape)


def locate(univariate: Bijector, x: jax.Array) -> Any:
    """Return the coordinates `x` of an event in the form that the univariate's methods take."""
    return univariate.locate(x) if isinstance(univariate, Univariate) else x
