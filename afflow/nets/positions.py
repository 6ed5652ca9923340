"""Positions in attention: how the score of two tokens depends on where they stand."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_positive
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import check_size


class Positions(ABC):
    """The way in which attention sees positions. A subclass is a hashable value without arrays.

    A subclass says which arrays it trains and how they enter: `embedding_shape` for the embedding
    of the tokens, `start_shape` for an array that is added to the embedded tokens, `layer_shape`
    for an array of each layer.
    """

    knows_length: bool  # whether the arrays are made for one length

    def embedding_shape(self, length: int, features: int, width: int) -> tuple[int, ...]:
        """Return the shape of the array that embeds tokens `(features,)` in rows `(width,)`."""
        return (features, width)

    def embed(self, x: jax.Array, weights: jax.Array, t: jax.Array | int) -> jax.Array:
        """Return the rows `(N, width)` at places `t, ..., t + N - 1` of tokens `(N, features)`."""
        return multiply_rows(x, weights)

    def start_shape(self, length: int, width: int) -> tuple[int, ...] | None:
        """Return the shape of an array that is added to the embedded tokens, or `None`."""
        return None

    def layer_shape(self, num_heads: int, head_dim: int) -> tuple[int, ...] | None:
        """Return the shape of an array of each layer, or `None`."""
        return None

    def turn(self, a: jax.Array, places: jax.Array) -> jax.Array:
        """Return queries or keys `(N, H, d)` as they enter the scores, from their places `(N,)`."""
        return a

    @abstractmethod
    def scores(self, q: jax.Array, weights: Any, places: jax.Array, size: int) -> Any:
        """Return what is added to the scores `(H, N, size)` of queries `(N, H, d)`.

        Args:
            q: the queries.
            weights: the array of the layer.
            places: the places of the queries `(N,)`; the keys stand at `0..size-1`.
            size: the number of keys.
        """


@dataclass(frozen=True)
class Absolute(Positions):
    """A trained vector for each place, added to the embedded token.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> sizes = {"width": 8, "num_layers": 1, "num_heads": 2, "rngs": nnx.Rngs(0)}
        >>> positions = afflow.nets.Absolute()
        >>> network = afflow.conditioners.Transformer(5, 3, **sizes, positions=positions)
        >>> network.knows_length
        True
    """

    knows_length = True

    def start_shape(self, length, width):
        return (length, width)

    def scores(self, q, weights, places, size):
        return 0.0


@dataclass(frozen=True)
class PerPlace(Absolute):
    r"""An embedding of its own for each place, as for the columns of a table.

    Token $x$ at place $t$ enters as $E_t x + e_t$. With one $E$ for all places, a sum over tokens
    barely shows which of them had which value.

    Gorishniy et al. 2021, arXiv:2106.11959 (feature tokenizer).

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> sizes = {"width": 8, "num_layers": 1, "num_heads": 2, "rngs": nnx.Rngs(0)}
        >>> positions = afflow.nets.PerPlace()
        >>> network = afflow.conditioners.Transformer(5, 3, **sizes, positions=positions)
        >>> network.E.shape
        (5, 1, 8)
    """

    def embedding_shape(self, length, features, width):
        return (length, features, width)

    def embed(self, x, weights, t):
        return jnp.einsum("nf,nfw->nw", x, jax.lax.dynamic_slice_in_dim(weights, t, len(x)))


@dataclass(frozen=True)
class Rotary(Positions):
    r"""Queries and keys turned by angles that grow with the place.

    Pair $i$ of the `d` values is turned by $m\,b^{-2i/d}$ at place $m$, so a score depends on the
    distance of its two tokens.

    Su et al. 2021, arXiv:2104.09864.

    Args:
        base: the base $b$.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> sizes = {"width": 8, "num_layers": 1, "num_heads": 2, "rngs": nnx.Rngs(0)}
        >>> positions = afflow.nets.Rotary()
        >>> network = afflow.conditioners.Transformer(5, 3, **sizes, positions=positions)
        >>> network.with_length(9).event_shape
        (9,)
    """

    base: float = 10_000.0
    knows_length = False

    def __post_init__(self):
        check_positive(base=self.base)

    def turn(self, a, places):
        half = a.shape[-1] // 2
        dtype = jnp.promote_types(a.dtype, jnp.float32)
        rates = jnp.asarray(self.base ** (-np.arange(half) / max(half, 1)), dtype)
        angles = places[:, None].astype(dtype) * rates[None]  # (N, d / 2)
        cos, sin = (f(angles)[:, None].astype(a.dtype) for f in (jnp.cos, jnp.sin))
        first, second, rest = jnp.split(a, [half, 2 * half], axis=-1)
        turned = [first * cos - second * sin, first * sin + second * cos, rest]
        return jnp.concatenate(turned, axis=-1)

    def scores(self, q, weights, places, size):
        return 0.0


@dataclass(frozen=True)
class Relative(Positions):
    r"""A trained vector for each distance and head, whose product with the query is added.

    $$s_{tn} = q_t \cdot (k_n + e_{t - n}).$$

    Distances beyond `max_distance` share the last vector. The whole matrix takes one product and a
    shift of rows ("skewing"), and no array of `T` times `T` vectors.

    Shaw et al. 2018, arXiv:1803.02155; Huang et al. 2018, arXiv:1809.04281 (Music Transformer).

    Args:
        max_distance: the largest distance with a separate vector.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> sizes = {"width": 8, "num_layers": 1, "num_heads": 2, "rngs": nnx.Rngs(0)}
        >>> positions = afflow.nets.Relative(4)
        >>> network = afflow.conditioners.Transformer(5, 3, **sizes, positions=positions)
        >>> network.layers[0].relative.shape
        (2, 5, 4)
    """

    max_distance: int = 256
    knows_length = False

    def __post_init__(self):
        check_size("max_distance", self.max_distance)

    def layer_shape(self, num_heads, head_dim):
        return (num_heads, self.max_distance + 1, head_dim)

    def scores(self, q, weights, places, size):
        distances = jnp.arange(size)[::-1]  # from far to near
        e = weights[:, jnp.minimum(distances, self.max_distance)]  # (H, size, d)
        by_distance = jnp.einsum("thd,hnd->htn", q, e)
        if len(q) == size:  # query t: the distance t of key 0 stands at size - 1 - t
            return _skew(by_distance)
        here = (jnp.arange(size)[None] + (size - 1 - places)[:, None]) % size  # (N, size)
        return jnp.take_along_axis(by_distance, here[None], axis=2)


def _skew(a: jax.Array) -> jax.Array:
    """Move row `t` of `(H, T, T)` left by `T - 1 - t` places; what comes in has no meaning."""
    heads, length, _ = a.shape
    padded = jnp.pad(a, ((0, 0), (0, 0), (1, 0)))  # (H, T, T + 1)
    return padded.reshape(heads, length + 1, length)[:, 1:]
