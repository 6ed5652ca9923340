"""The transformer decoder: causal attention over the tokens."""

from typing import ClassVar, Self

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_instance, check_positive
from afflow._tools.modules import copy_module
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import check_size
from afflow.core.conditioner import Conditioner
from afflow.nets.attention import Encoder, Layer, check_heads, normalize
from afflow.nets.positions import Positions, Rotary
from afflow.nets.weights import draw_normal

_SEGMENTS = 4


class Transformer(Conditioner):
    r"""A transformer decoder with normalisation in front of every block.

    $$h_0(t) = E x_{t-1} / \sqrt F + e, \qquad
    h \leftarrow h + O\,\mathrm{attention}(\mathrm{norm}(h)), \qquad
    h \leftarrow h + M_2\,\mathrm{gelu}(M_1\,\mathrm{norm}(h)), \qquad
    p_t = V\,\mathrm{norm}(h(t)) + b.$$

    A token has $F$ values. Row `t` attends to itself and the rows before it. Row 0 starts from a
    trained vector and the context. A density takes one pass. Decoding keeps keys and values of all
    rows, in segments whose caches grow. The output weights start at zero.

    With an `encoder` the context is a sequence, and the model is a model from sequence to sequence.
    Every layer then has a third block, between the two, that attends to the encoded context.

    Vaswani et al. 2017, arXiv:1706.03762; Radford et al. 2019 (GPT-2).

    Args:
        length: number of tokens `T`.
        num_params: parameters per token `P`.
        width: features of a row.
        num_layers: number of layers, of two blocks each.
        num_heads: number of attention heads; divides `width`.
        features: values in a token, 1 for a scalar. With more, an event is `(T, features)`.
        context_dim: length of the context vector; 0 for none.
        encoder: an `nets.Encoder` of the context, with rows of this `width`, in place of a context
            vector.
        positions: `nets.Rotary()`, `nets.Relative()`, `nets.Absolute()` or `nets.PerPlace()`.
        dropout: the probability to drop an output of a block, during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, a width that the heads do not divide, or a `dropout`
            outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"width": 8, "num_layers": 2, "num_heads": 2}
        >>> network = afflow.conditioners.Transformer(5, 3, **sizes, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(5)).shape
        (5, 3)
    """

    temperature: float = 1.0  # the divisor of the scores of attention
    cache_only_grows = True
    ABSENT: ClassVar = {"token_scale": 1.0}  # value for archives from before the scale existed

    def __init__(
        self,
        length: int,
        num_params: int,
        *,
        width: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        features: int = 1,
        context_dim: int = 0,
        encoder: Encoder | None = None,
        positions: Positions = Rotary(),
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        sizes = length, num_params, (width,)
        self._set_sizes(*sizes, features=features, context_dim=context_dim, dropout=dropout)
        check_size("num_layers", num_layers)
        check_heads(width, num_heads)
        check_instance("positions", positions, Positions)
        if encoder is not None:
            check_instance("encoder", encoder, Encoder)
            if context_dim or len(encoder.norm[...]) != width:
                raise ValueError(
                    f"Expected an encoder with rows of width {width} and context_dim=0, got width "
                    f"{len(encoder.norm[...])} and context_dim={context_dim}."
                )
        self.encoder = encoder
        if encoder is not None:
            self.context_shape = encoder.context_shape
        self.positions = positions
        embedding = positions.embedding_shape(length, features, width)
        # A symbol and a patch both have a length of about sqrt(features). The rows of large tokens
        # start small, so that they do not hide what the layers add.
        self.token_scale = features**-0.5
        self.E = draw_normal(rngs, features**-0.5, *embedding)
        # Without e, normalisation would leave no more of a scalar token than its sign.
        self.e = draw_normal(rngs, features**-0.5, width)
        self.start = nnx.Param(jnp.zeros(width))
        self.U = draw_normal(rngs, 1 / max(context_dim, 1), context_dim, width)
        shape = positions.start_shape(length, width)
        self.places = None if shape is None else draw_normal(rngs, 1, *shape)
        options = {"num_layers": num_layers, "positions": positions, "rngs": rngs}
        options["crosses"] = encoder is not None
        self.layers = nnx.List([Layer(width, num_heads, **options) for _ in range(num_layers)])
        self.norm = nnx.Param(jnp.ones(width))
        self.V = nnx.Param(jnp.zeros((width, num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    @property
    def knows_length(self) -> bool:
        """Whether the positions are made for one number of tokens."""
        return self.positions.knows_length

    def with_temperature(self, temperature: float) -> Self:
        """Return the transformer whose scores of attention are divided by `temperature`.

        Large temperatures average over all rows alike.

        Raises:
            ValueError: if `temperature <= 0`.
        """
        check_positive(temperature=temperature)
        return copy_module(self, temperature=float(temperature))

    def __call__(self, x, context=None):
        return self.read(x, self.begin(context, x.dtype))[0]

    def init_cache(self, context=None, dtype=float):
        length = self.event_shape[0]
        dtype = jnp.result_type(self.E[...], dtype)
        pairs = [layer.empty(length, dtype) for layer in self.layers]
        start, others = self.start[...], []
        if self.encoder is not None:
            rows = self.encoder(context)
            others = [layer.cross.remember(rows) for layer in self.layers]
        elif context is not None:
            start = start + context @ self.U[...]
        return pairs, jax.tree.map(lambda a: a.astype(dtype), (start, others))

    def resize(self, cache, size):
        def cut(a):
            return jnp.pad(a[:, :size], ((0, 0), (0, max(size - a.shape[1], 0)), (0, 0)))

        pairs, given = cache
        return jax.tree.map(cut, pairs), given

    def segments(self):
        length = self.event_shape[0]
        num = _SEGMENTS if length >= 4 * _SEGMENTS else 1
        return [length * i // num for i in range(num + 1)]

    def step(self, x_prev, t, cache):
        params, cache = self.prefill(x_prev[None], t, cache)
        return params[0], cache

    def prefill(self, x_prev, t, cache, key=None):
        pairs, (start, others) = cache
        n = len(x_prev)
        places = t + jnp.arange(n)
        tokens = self.token_scale * x_prev.reshape(n, self.features)
        rows = self.positions.embed(tokens, self.E[...], t)
        h = jnp.where((places == 0)[:, None], start[None], rows + self.e[...][None])  # (n, width)
        if self.places is not None:
            h = h + jax.lax.dynamic_slice_in_dim(self.places[...], t, n)
        h, new = self._drop(key, 0, h), []
        for i, (layer, (keys, values)) in enumerate(zip(self.layers, pairs, strict=True)):
            q, k, v = layer.project(h, places)
            keys = jax.lax.dynamic_update_slice_in_dim(keys, k.astype(keys.dtype), t, 1)
            values = jax.lax.dynamic_update_slice_in_dim(values, v.astype(keys.dtype), t, 1)
            read = layer.attend(q, keys, values, places, self.temperature)
            h = h + self._drop(key, 3 * i + 1, read)
            if others:
                h = h + self._drop(key, 3 * i + 2, layer.cross.attend(h, *others[i]))
            h = h + self._drop(key, 3 * i + 3, layer.transform(h))
            new.append((keys, values))
        params = multiply_rows(normalize(h, self.norm), self.V[...]) + self.b[...][None]
        return params, (new, (start, others))
