"""The protocol of a network that computes the conditionals of the chain rule in any order."""

import math
from abc import abstractmethod
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.modules import copy_module
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape
from afflow.core.conditioner import Emit, Place, run_steps


class Draw(NamedTuple):
    """An order `(D,)` of the coordinates, and a key for further random draws of the network."""

    order: jax.Array
    key: jax.Array


def undo_order(x: jax.Array, order: jax.Array) -> jax.Array:
    """Return `x` `(D, ...)` from the order `(D,)` back in the natural order.

    This is `x[argsort(order)]`. On a CPU the sort takes 70 times as long.
    """
    return jnp.zeros_like(x).at[order].set(x, unique_indices=True)


class OrderAgnostic(Outlined, nnx.Module):
    r"""One network for the conditionals of every order $o$: $p_t = c(x_{o_{<t}}, o_t)$.

    A subclass sets `event_shape`, `num_params` and `context_shape` as a `Conditioner` does. It
    also sets two booleans:

    - `draws_per_batch`: whether training uses one `Draw` for a whole minibatch.
    - `needs_random_orders`: whether `estimate` is unbiased over random orders only.

    `dropout` is the probability that `estimate` drops a hidden unit.

    In the methods, `x`, inputs and results are in the drawn order: entry `t` belongs to
    coordinate `draw.order[t]`.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> net = afflow.conditioners.DeepNADE(3, 1, (8,), rngs=nnx.Rngs(0))
        >>> isinstance(net, afflow.core.OrderAgnostic)
        True
    """

    event_shape: Shape
    context_shape: Shape | None
    num_params: int
    draws_per_batch: bool
    needs_random_orders: bool
    dropout: float = 0.0

    def without_noise(self) -> Self:
        """Return the network whose `estimate` drops no units."""
        return copy_module(self, dropout=0.0) if self.dropout else self

    @property
    def features(self) -> int:
        """Return how many numbers encode a coordinate."""
        return math.prod(self.event_shape[1:])

    @abstractmethod
    def init_cache(self, draw: Draw, context: jax.Array | None = None) -> Any:
        """Return the initial cache of `step`."""

    @abstractmethod
    def step(self, x_prev: jax.Array, t: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        """Return the parameters `(P,)` of coordinate `draw.order[t]`, and the new cache.

        As in `Conditioner`, steps run in order, and `x_prev` is ignored at `t = 0`.
        """

    def begin(self, draw: Draw, context: jax.Array | None = None) -> Place:
        """Return the place before the first coordinate of the drawn order."""
        return Place(jnp.zeros(self.event_shape[1:]), 0, self.init_cache(draw, context))

    def decode(
        self, emit: Emit, inputs: Any, draw: Draw, context: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Run the serial direction, as `Conditioner.decode` does, along the drawn order."""
        return run_steps(self.step, self.begin(draw, context), emit, inputs)[1]

    @abstractmethod
    def in_order(self, x: jax.Array, draw: Draw, context: jax.Array | None = None) -> jax.Array:
        """Return the parameters `(D, P)` of all coordinates of `x`, in the drawn order."""

    @abstractmethod
    def estimate(
        self, key: jax.Array, x: jax.Array, draw: Draw, context: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        r"""Return parameters `(D, P)` and weights $w$ `(D,)` for an estimate of $\log p(x)$.

        The estimate $\sum_t w_t \log p(x_t)$ has the mean $\log p(x)$ over keys. If the network
        `needs_random_orders`, the mean is over keys and orders.
        """
