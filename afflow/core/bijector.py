"""The bijector protocol, and the bijector read backwards."""

from abc import abstractmethod
from collections.abc import Callable
from functools import wraps
from typing import Any

import jax
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_instance
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape


class Bijector(Outlined, nnx.Module):
    r"""An invertible differentiable map of one event, with its log-determinant.

    `forward` maps noise to data (sampling), `inverse` maps data to noise (density):

    $$y = f(x), \qquad \log p_Y(y) = \log p_X(f^{-1}(y)) + \log|\det J_{f^{-1}}(y)|.$$

    A subclass sets `event_shape` and `context_shape` (`None`: takes no context) and
    writes the two `_and_log_det` methods for a single event, without batch axes;
    log-determinants are scalars. Batch with `jax.vmap`, or wrap in a `Flow`.
    A bijector that takes no context ignores one.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> class Double(afflow.Bijector):
        ...     event_shape, context_shape = (2,), None
        ...     def forward_and_log_det(self, x, context=None):
        ...         return 2 * x, 2 * jnp.log(2.0)
        ...     def inverse_and_log_det(self, y, context=None):
        ...         return y / 2, -2 * jnp.log(2.0)
        >>> Double().inverse(jnp.array([2.0, 4.0])).tolist()
        [1.0, 2.0]
    """

    event_shape: Shape
    context_shape: Shape | None
    has_units: Any = False  # whether it brings standard coordinates to the units of data
    is_elementwise = False  # whether a class maps every coordinate by itself

    @property
    def is_triangular(self) -> bool:
        """Whether output `t` is known to depend on inputs `0..t` only, in both directions."""
        return self.is_elementwise

    @abstractmethod
    def forward_and_log_det(
        self, x: jax.Array, context: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return `y = f(x)` (event_shape) and `log|det df/dx|` (scalar)."""

    @abstractmethod
    def inverse_and_log_det(
        self, y: jax.Array, context: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return `x = f^-1(y)` (event_shape) and `log|det df^-1/dy|` (scalar)."""

    def forward(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return `y = f(x)`: noise to data."""
        return self.forward_and_log_det(x, context)[0]

    def inverse(self, y: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return `x = f^-1(y)`: data to noise."""
        return self.inverse_and_log_det(y, context)[0]

    def embed(self, contexts: jax.Array) -> tuple["Bijector", jax.Array]:
        """Return the bijector behind its embedding network, and the contexts seen through it.

        A bijector without a network in front returns itself and its contexts.

        Args:
            contexts: `(..., *context_shape)`.
        """
        return self, contexts


def of_one_event(method: Callable) -> Callable:
    """Decorate a method of a bijector or distribution: a batch of events is an error there.

    Most formulas would broadcast over a batch, with one log-determinant for all of it.
    """

    @wraps(method)
    def checked(self, x, context=None):
        if np.shape(x) != self.event_shape:
            raise ValueError(
                f"Expected one event of shape {self.event_shape}, got {np.shape(x)}: map "
                f"{type(self).__name__} over a batch with jax.vmap, or use the methods of a Flow."
            )
        return method(self, x, context)

    return checked


def num_params(univariate: Bijector) -> tuple[int]:
    """Return `(P,)`, the parameter shape of a univariate; `ValueError` if it is none."""
    check_instance("univariate", univariate, Bijector)
    shape = univariate.context_shape
    if univariate.event_shape != () or shape is None or len(shape) != 1:
        raise ValueError(
            f"Expected a univariate (event_shape (), context_shape (P,)), got "
            f"event_shape {univariate.event_shape}, context_shape {shape}."
        )
    return shape
