"""Layers of attention, and the encoder of a sequence."""

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.outline import Outlined
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import check_size
from afflow.nets.positions import Absolute, Positions
from afflow.nets.weights import draw_normal

_EPSILON = 1e-5


class Encoder(Outlined, nnx.Module):
    r"""A transformer without a mask: every row of the result sees every row of the sequence.

    $$h_0(s) = E c_s + e_s, \qquad
    h \leftarrow h + O\,\mathrm{attention}(\mathrm{norm}(h)), \qquad
    h \leftarrow h + M_2\,\mathrm{gelu}(M_1\,\mathrm{norm}(h)).$$

    Row $c_s$ of the sequence has $C$ values, of mean square about one. A vector $e_s$ is trained
    for each place $s$. The result is `norm(h)`. With `symbols` the sequence has one symbol for each
    place, and $c_s$ is $\sqrt C$ at the number of the symbol, and zero elsewhere.

    Vaswani et al. 2017, arXiv:1706.03762.

    Args:
        length: number of rows of the sequence `S`.
        features: values in a row `C`, or the number of different symbols.
        width: values in a row of the result; the heads divide it.
        num_layers: number of layers, of two blocks each.
        num_heads: number of attention heads.
        symbols: whether the sequence is `(S,)`, of symbols from 0 to $C - 1$, in place of
            `(S, C)`. Any other number stands for no symbol, as a padding needs.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or a width that the heads do not divide.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"num_layers": 1, "num_heads": 2, "rngs": nnx.Rngs(0)}
        >>> afflow.nets.Encoder(5, 3, 8, **sizes)(jnp.ones((5, 3))).shape
        (5, 8)
        >>> afflow.nets.Encoder(5, 3, 8, symbols=True, **sizes)(jnp.array([0, 2, 1, 0, 0])).shape
        (5, 8)
    """

    ABSENT: ClassVar = {"symbols": False}  # in archives from before encoders read symbols

    def __init__(
        self,
        length: int,
        features: int,
        width: int,
        *,
        num_layers: int = 2,
        num_heads: int = 4,
        symbols: bool = False,
        rngs: nnx.Rngs,
    ):
        check_size("length", length)
        check_size("features", features)
        check_size("num_layers", num_layers)
        check_heads(width, num_heads)
        self.symbols, self.context_shape = symbols, (length,) if symbols else (length, features)
        self.E = draw_normal(rngs, 1 / features, features, width)
        self.places = draw_normal(rngs, 1, length, width)
        options = {"num_layers": num_layers, "positions": Absolute(), "rngs": rngs}
        self.layers = nnx.List([Layer(width, num_heads, **options) for _ in range(num_layers)])
        self.norm = nnx.Param(jnp.ones(width))

    def __call__(self, context: Any) -> jax.Array:
        """Return the encoded rows `(S, width)` of a sequence, `(S, C)` or `(S,)`."""
        rows = jax.vmap(self._indicate)(context) if self.symbols else context
        h = multiply_rows(rows, self.E[...]) + self.places[...]
        everywhere = jnp.full(len(h), len(h) - 1)  # the place from which all rows are seen
        for layer in self.layers:
            q, k, v = layer.project(h, everywhere)
            h = h + layer.attend(q, k, v, everywhere)
            h = h + layer.transform(h)
        return normalize(h, self.norm)

    def _indicate(self, symbol):
        """Return a row `(C,)` of mean square one for a symbol; NaN gives NaN."""
        features = len(self.E[...])
        row = math.sqrt(features) * (symbol == jnp.arange(features)).astype(symbol.dtype)
        return jnp.where(jnp.isnan(symbol), symbol, row)


class Layer(nnx.Module):
    """The weights of one layer: a block of attention, and a block of two linear maps.

    Args:
        width: values in a row.
        num_heads: number of attention heads.
        num_layers: number of layers of the network; the last weights of a block shrink with it.
        positions: how the scores depend on places.
        crosses: whether the layer has a block of attention to another sequence as well.
        rngs: its `params` stream draws the initial weights.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        num_layers: int,
        positions: Positions,
        crosses: bool = False,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.positions = num_heads, positions
        small = 1 / (2 * num_layers * width)
        self.norm_attention, self.norm_linear = (nnx.Param(jnp.ones(width)) for _ in range(2))
        self.qkv = draw_normal(rngs, 1 / width, width, 3 * width)
        self.out = draw_normal(rngs, small, width, width)
        self.widen = draw_normal(rngs, 1 / width, width, 4 * width)
        self.b_widen = nnx.Param(jnp.zeros(4 * width))
        self.narrow = draw_normal(rngs, small / 4, 4 * width, width)
        self.b_narrow = nnx.Param(jnp.zeros(width))
        shape = positions.layer_shape(num_heads, width // num_heads)
        self.relative = None if shape is None else draw_normal(rngs, 1 / shape[-1], *shape)
        self.cross: Any = Cross(width, num_heads, variance=small, rngs=rngs) if crosses else None

    def project(self, h: jax.Array, places: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return queries `(N, H, d)`, and keys and values `(H, N, d)`, of rows `(N, width)`."""
        rows = multiply_rows(normalize(h, self.norm_attention), self.qkv[...])
        q, k, v = jnp.moveaxis(rows.reshape(len(h), 3, self.num_heads, -1), 1, 0)
        q, k = self.positions.turn(q, places), self.positions.turn(k, places)
        return q, k.swapaxes(0, 1), v.swapaxes(0, 1)

    def attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        places: jax.Array,
        temperature: float = 1.0,
    ) -> jax.Array:
        """Return the rows that queries `(N, H, d)` at `places` read from keys at `0..places`.

        The scores of the keys are divided by `temperature`.
        """
        weights = None if self.relative is None else self.relative[...]
        size = k.shape[1]
        added = self.positions.scores(q, weights, places, size)
        seen = places[:, None] >= jnp.arange(size)[None]
        read = average(q / temperature, k, v, added / temperature, seen)
        return multiply_rows(read, self.out[...])

    def transform(self, h: jax.Array) -> jax.Array:
        """Return the output of the block of two linear maps."""
        wide = multiply_rows(normalize(h, self.norm_linear), self.widen[...])
        wide = jax.nn.gelu(wide + self.b_widen[...][None])
        return multiply_rows(wide, self.narrow[...]) + self.b_narrow[...][None]

    def empty(self, length: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """Return empty keys and values `(H, length, d)`."""
        zeros = jnp.zeros((self.num_heads, length, len(self.out[...]) // self.num_heads), dtype)
        return zeros, zeros


class Cross(nnx.Module):
    """A block of attention to the rows of another sequence.

    Args:
        width: values in a row of both sequences.
        num_heads: number of attention heads.
        variance: the variance of the last weights.
        rngs: its `params` stream draws the initial weights.
    """

    def __init__(self, width: int, num_heads: int, *, variance: float, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.norm = nnx.Param(jnp.ones(width))
        self.query = draw_normal(rngs, 1 / width, width, width)
        self.kv = draw_normal(rngs, 1 / width, width, 2 * width)
        self.out = draw_normal(rngs, variance, width, width)

    def remember(self, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the keys and values `(H, S, d)` of the other sequence `(S, width)`."""
        pairs = multiply_rows(rows, self.kv[...]).reshape(len(rows), 2, self.num_heads, -1)
        k, v = pairs.transpose(1, 2, 0, 3)
        return k, v

    def attend(self, h: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        """Return the output of the block for rows `(N, width)`."""
        q = multiply_rows(normalize(h, self.norm), self.query[...])
        q = q.reshape(len(h), self.num_heads, -1)
        read = average(q, k, v, 0.0, jnp.ones((1, 1), bool))
        return multiply_rows(read, self.out[...])


def average(q: jax.Array, k: jax.Array, v: jax.Array, added: Any, seen: jax.Array) -> jax.Array:
    r"""Return averages of values, `(N, width)`, weighted by $\mathrm{softmax}(q k^T / \sqrt d)$.

    Args:
        q: queries `(N, H, d)`.
        k: keys `(H, S, d)`.
        v: values `(H, S, d)`.
        added: a term that is added to the products `(H, N, S)` of queries and keys.
        seen: which values a query sees; broadcasts to `(N, S)`.
    """
    # Heads come first: in another order XLA's CPU backend copies all keys and values at each step
    # of decoding, to transpose them.
    scores = (jnp.einsum("thd,hnd->htn", q, k) + added) / math.sqrt(q.shape[-1])
    scores = jnp.where(seen[None], scores, -jnp.inf)
    return jnp.einsum("htn,hnd->thd", jax.nn.softmax(scores), v).reshape(len(q), -1)


def normalize(h: jax.Array, scale: Any) -> jax.Array:
    """Return rows with mean zero and variance one, times a trained scale."""
    centred = h - h.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + _EPSILON) * scale[...][None]


def check_heads(width: int, num_heads: int) -> None:
    """Raise `ValueError` for sizes below one, or a width that the heads do not divide."""
    check_size("width", width)
    check_size("num_heads", num_heads)
    if width % num_heads:
        raise ValueError(f"Expected num_heads that divides width {width}, got {num_heads}.")
