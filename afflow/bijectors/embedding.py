"""Contexts that are embedded by a network, or standardised."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_callable, check_instance
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_shape
from afflow.bijectors.elementwise import Standardize
from afflow.core.bijector import Bijector


class Embedded(Bijector):
    r"""A bijector whose context is the output of a network: $y = f(x;\, n(h))$.

    The network runs once for all layers of the bijector, and is trained with the layers. If
    `Embedded` is the outermost bijector of a `Flow`, the network runs once for each given context,
    even if several events share the context. A context can be an image, a series or any other
    array that the network takes.

    A network with `nnx.BatchNorm` or `nnx.Dropout` is in evaluation mode here. `fit` runs it in
    training mode on whole minibatches `(B, *context_shape)`, and keeps the statistics and keys
    that training has updated.

    Args:
        bijector: the map to run, with a context.
        network: a module that maps one context `context_shape` to `bijector.context_shape`. A
            network with statistics or randomness must also map minibatches of contexts.
        context_shape: the shape of the context that the network takes, or the length of a vector.

    Raises:
        ValueError: if the network does not return the bijector's context shape.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> flow = afflow.maf(2, hidden=(8,), context_dim=3, rngs=rngs)
        >>> network = nnx.Linear(20, 3, rngs=rngs)
        >>> flow = afflow.Flow(flow.base, afflow.Embedded(flow.bijector, network, 20))
        >>> flow.log_prob(jnp.zeros((5, 2)), jnp.ones((5, 20))).shape
        (5,)
    """

    context_shape: Shape

    def __init__(self, bijector: Bijector, network: Callable, context_shape: int | Shape):
        check_instance("bijector", bijector, Bijector)
        check_callable("network", network, "nnx.Linear(20, 3, rngs=rngs)")
        if has_state(network):
            network.eval()  # pyright: ignore[reportFunctionMemberAccess]
        self.bijector = bijector
        self.network = network
        self.event_shape = bijector.event_shape
        self.context_shape = check_shape("context_shape", context_shape)
        found = self._check_network()
        if found != bijector.context_shape:
            raise ValueError(
                f"Expected a network that returns the bijector's context_shape "
                f"{bijector.context_shape}, got {found}."
            )

    def _check_network(self) -> Shape:
        """Return the shape that the network returns, or raise `ValueError` if it fails."""
        one = jax.ShapeDtypeStruct(self.context_shape, float)
        try:
            return jax.eval_shape(self.network, one).shape
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Expected a network that takes one context of shape {self.context_shape}, got "
                f"an error: {error}"
            ) from error

    @property
    def is_triangular(self) -> bool:
        return self.bijector.is_triangular

    @property
    def noise_order(self) -> tuple[int, ...] | None:
        return self.bijector.noise_order

    def walk(self, x, context, visit, *, forward=False):
        return self.bijector.walk(x, jax.vmap(self.network)(context), visit, forward=forward)

    def forward_and_log_det(self, x, context=None):
        return self.bijector.forward_and_log_det(x, self.network(context))

    def inverse_and_log_det(self, y, context=None):
        return self.bijector.inverse_and_log_det(y, self.network(context))

    def embed_to_train(self, contexts):
        network: Any = self.network
        if has_state(network):
            network.train()
            seen = network(contexts)
            network.eval()
        else:
            seen = jax.vmap(network)(contexts)
        return self.bijector.embed_to_train(seen)

    @property
    def is_stateful(self) -> bool:
        """Whether an embedding network has batch statistics or random keys."""
        return has_state(self.network) or self.bijector.is_stateful

    def embed(self, contexts):
        network = self.network
        for _ in range(contexts.ndim - len(self.context_shape)):
            network = jax.vmap(network)
        return self.bijector.embed(network(contexts))


def has_state(network: Any) -> bool:
    """Return whether a network has batch statistics or random keys, which training updates."""
    if not isinstance(network, nnx.Module):
        return False
    return bool(jax.tree.leaves(nnx.state(network, (nnx.BatchStat, nnx.RngState))))


class ZScores(Outlined, nnx.Module):
    """A map that standardises a context by the mean and standard deviation of given contexts.

    Use it as the network of an `Embedded`.

    Args:
        context: the given contexts `(N, *context_shape)`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.maf(2, hidden=(8,), context_dim=1, rngs=nnx.Rngs(0))
        >>> in_volts = afflow.bijectors.ZScores(jnp.array([[210.0], [230.0]]))
        >>> afflow.Embedded(flow.bijector, in_volts, 1).context_shape
        (1,)
        >>> in_volts(jnp.array([240.0])).tolist()
        [2.0]
    """

    def __init__(self, context: ArrayLike):
        self.units = Standardize.from_data(context)

    def __call__(self, context: jax.Array) -> jax.Array:
        """Return the z-scores of one context."""
        return self.units.inverse(context)
