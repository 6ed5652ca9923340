"""The protocol of a network that serves the chain rule in any order."""

import math
from abc import abstractmethod
from typing import Any, NamedTuple

import jax
from flax import nnx

from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape
from afflow.core.conditioner import Emit


class Draw(NamedTuple):
    """An order `(D,)` of the coordinates, and a key for what else a network draws with it."""

    order: jax.Array
    key: jax.Array


class OrderAgnostic(Outlined, nnx.Module):
    r"""One network for the conditionals of every order $o$: $p_t = c(x_{o_{<t}}, o_t)$.

    A subclass sets `event_shape`, `num_params` and `context_shape` as a `Conditioner` does,
    `draws_per_batch`: whether it trains on one draw for a whole minibatch, and
    `needs_random_orders`: whether its `estimate` is unbiased over random orders only.

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

    @property
    def features(self) -> int:
        """Return how many numbers encode a coordinate."""
        return math.prod(self.event_shape[1:])

    @abstractmethod
    def decode(
        self, emit: Emit, inputs: Any, draw: Draw, context: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Run the serial direction; `inputs` and results are in the order drawn."""

    @abstractmethod
    def in_order(self, x: jax.Array, draw: Draw, context: jax.Array | None = None) -> jax.Array:
        """Return the parameters `(D, P)` of all coordinates; they and `x` in the order drawn."""

    @abstractmethod
    def estimate(
        self, key: jax.Array, x: jax.Array, draw: Draw, context: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        r"""Return parameters `(D, P)` and weights `(D,)`, in the order drawn, as is `x`.

        $\sum_t w_t \log p(x_t)$ has the mean $\log p(x)$ over keys, and over orders too if
        the network `needs_random_orders`.
        """
