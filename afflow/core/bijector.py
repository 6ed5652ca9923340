"""The bijector protocol."""

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape

Visit = Callable[..., None]
"""`visit(layer, batch, context, forward=...)` looks at a layer, or changes it, before it runs."""


class Bijector(Outlined, nnx.Module):
    r"""An invertible differentiable map of one event, with its log-determinant.

    `forward` maps noise to data (sampling), `inverse` maps data to noise (density):

    $$y = f(x), \qquad \log p_Y(y) = \log p_X(f^{-1}(y)) + \log|\det J_{f^{-1}}(y)|.$$

    A subclass sets `event_shape` and `context_shape`, which is `None` for a bijector without a
    context. A subclass also writes the two `_and_log_det` methods. They map a single event,
    without batch axes, and return a scalar log-determinant. For a batch, use `jax.vmap` or a
    `Flow`. A bijector without a context ignores a context that it is given.

    A bijector made of other bijectors also overrides `walk`. It overrides `is_triangular` and
    `noise_order` if it keeps or permutes the order of the coordinates.

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
    has_units: Any = False  # whether the bijector maps standard coordinates to the units of data
    is_elementwise = False  # whether the bijector maps each coordinate separately
    is_stateful: Any = False  # whether training changes statistics or keys of an embedding network

    @property
    def is_triangular(self) -> bool:
        """Whether output `t` is known to depend on inputs `0..t` only, in both directions."""
        return self.is_elementwise

    @property
    def noise_order(self) -> tuple[int, ...] | None:
        """The permutation of the noise that makes the bijector triangular, or `None`.

        Output `t` is known to depend on the inputs `noise_order[0]` to `noise_order[t]` only.
        """
        return tuple(range(math.prod(self.event_shape))) if self.is_triangular else None

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
        """Run the embedding network. Return the bijector inside, and the embedded contexts.

        A bijector without an embedding network returns itself and the contexts unchanged.

        Args:
            contexts: `(..., *context_shape)`.
        """
        return self, contexts

    def embed_to_train(self, contexts: jax.Array) -> tuple["Bijector", jax.Array]:
        """Run `embed` with the network in training mode.

        All contexts form one minibatch. The network updates its statistics and random keys.

        Args:
            contexts: `(B, *context_shape)`.
        """
        return self.embed(contexts)

    def walk(
        self, x: jax.Array, context: jax.Array | None, visit: Visit, *, forward: bool = False
    ) -> jax.Array:
        """Run a batch of events through the bijector, layer by layer, and visit every layer.

        `visit(layer, batch, context, forward=forward)` is called before a layer runs, with the
        batch that reaches the layer and its contexts. It may change the layer in place. A bijector
        without layers visits itself.

        Args:
            x: events `(N, *event_shape)`.
            context: contexts `(N, *context_shape)`, or `None`.
            visit: called for every layer, in the order of the run.
            forward: run `forward` instead of `inverse`.

        Returns:
            The mapped events `(N, *event_shape)`.
        """
        visit(self, x, context, forward=forward)
        return map_events(self, x, context, forward=forward)


@partial(jax.jit, static_argnames="forward")
def map_events(
    layer: Bijector, x: jax.Array, context: jax.Array | None, *, forward: bool = False
) -> jax.Array:
    """Map a batch of events `(N, *event_shape)` by `inverse`, or by `forward`."""
    method = layer.forward if forward else layer.inverse
    return jax.vmap(method, in_axes=(0, None if context is None else 0))(x, context)


def of_one_event(method: Callable) -> Callable:
    """Decorate a method of a bijector or distribution to reject anything but a single event.

    Without the check, most formulas would broadcast over a batch of events and return one
    log-determinant for the whole batch. Bijectors also reject integers, to whose type they would
    round their parameters.
    """

    @wraps(method)
    def checked(self, x, context=None):
        if np.shape(x) != self.event_shape:
            raise ValueError(
                f"Expected one event of shape {self.event_shape}, got {np.shape(x)}: map "
                f"{type(self).__name__} over a batch with jax.vmap, or use the methods of a Flow."
            )
        dtype = jnp.result_type(x)
        if isinstance(self, Bijector) and not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(f"Expected a floating-point event, got {dtype}: convert it.")
        return method(self, x, context)

    return checked
