"""The subscale pixel network: an image as interleaved slices, one after another."""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.products import multiply_rows
from afflow._tools.shapes import Shape, check_shape, check_size
from afflow.conditioners.pixels.lstm import draw
from afflow.conditioners.pixels.pixelcnn import check_plane
from afflow.conditioners.pixels.slice_embedder import SliceEmbedder
from afflow.core.conditioner import Conditioner
from afflow.nets.attention import Layer, check_heads, normalize
from afflow.nets.positions import Rotary
from afflow.nets.slices import Slices


class Subscale(Conditioner):
    r"""A subscale pixel network: slices of every `S`-th row and column, one after another.

    $$z = \mathrm{embed}(x_{<s}) + e_s, \qquad
    h_0(t) = E x_{t-1} + e + z(t) + f(t), \qquad
    h \leftarrow h + O\,\mathrm{attention}(\mathrm{norm}(h)), \qquad
    h \leftarrow h + M_2\,\mathrm{gelu}(M_1\,\mathrm{norm}(h)), \qquad
    p_t = V\,\mathrm{norm}(h(t)) + b.$$

    The slices `x[a::S, b::S]` come in raster order of `(a, b)`, and the pixels of a slice in raster
    order. `order` holds the raster index of each token. The embedder of slice $s$ is a residual
    network of convolutions over the slices before, with a trained vector $e_s$. At each pixel of
    the slice it reads the given pixels around that pixel, as channels. The decoder is a causal
    transformer over the pixels of one slice, with a trained vector $f$ for each place. All slices
    share the weights. A pixel sees every pixel before it in the order.

    A density takes one pass, with all slices in parallel. In decoding, the first step of a slice
    computes the embedder; a step computes one row of the decoder from kept keys and values. The
    output weights start at zero.

    Menick and Kalchbrenner 2019, arXiv:1812.01608.

    Args:
        shape: `(H, W)`.
        num_params: parameters per pixel `P`.
        factor: the distance `S` of the rows, and of the columns, of a slice.
        width: features of a pixel in the embedder and in the decoder.
        num_layers: number of layers of the decoder, of two blocks each.
        num_heads: number of attention heads; divides `width`.
        num_blocks: number of residual blocks of the embedder.
        features: numbers in a pixel, 1 for a scalar. With more, an event is `(H W, features)`.
        context_dim: length of the context vector, which the embedder sees; 0 for none. Or the shape
            `(H, W, C)` of a context image: the embedder sees its pixels where they are.
        dropout: the probability to drop an output of a block of the decoder, during training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, a width that the heads do not divide, a context image of
            another size, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"factor": 2, "width": 8, "num_layers": 1, "num_heads": 2}
        >>> network = afflow.conditioners.Subscale((3, 4), 1, **sizes, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(12)).shape, network.order[:5]
        ((12, 1), (0, 2, 8, 10, 1))
    """

    def __init__(
        self,
        shape: Shape,
        num_params: int,
        *,
        factor: int = 4,
        width: int = 64,
        num_layers: int = 3,
        num_heads: int = 4,
        num_blocks: int = 2,
        features: int = 1,
        context_dim: int | Shape = 0,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        check_size("factor", factor)
        self.slices = Slices(check_plane(shape), factor)
        context_shape = _find_context_shape(context_dim, self.slices.shape)
        options = {"context_dim": (context_shape or (0,))[-1], "dropout": dropout}
        tokens = math.prod(self.slices.shape)
        self._set_sizes(tokens, num_params, (width,), features=features, **options)
        self.context_shape = context_shape
        check_size("num_layers", num_layers)
        check_size("num_blocks", num_blocks)
        check_heads(width, num_heads)
        sizes = features, width, num_blocks
        self.embedder = SliceEmbedder(self.slices, *sizes, self.context_shape, rngs)
        self.E = draw(rngs, features, features, width)
        # Without e, normalisation would leave no more of a scalar pixel than its sign.
        self.e = draw(rngs, features, width)
        self.start = nnx.Param(jnp.zeros(width))
        self.places = draw(rngs, 1, math.prod(self.slices.grid), width)
        options = {"num_layers": num_layers, "positions": Rotary(), "rngs": rngs}
        self.layers = nnx.List([Layer(width, num_heads, **options) for _ in range(num_layers)])
        self.norm = nnx.Param(jnp.ones(width))
        self.V = nnx.Param(jnp.zeros((width, num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    @property
    def order(self) -> tuple[int, ...]:
        """Return the raster index of each token."""
        return self.slices.order

    def __call__(self, x, context=None):
        return self._pass(x, context, None)

    def _pass(self, x, context, key):
        slices, tokens = self.slices, self.slices.find_tokens()
        x = x.reshape(-1, self.features).astype(self._find_dtype(x.dtype))
        image = x[np.argsort(tokens.raster)].reshape(*slices.shape, -1)
        before = jnp.pad(slices.cut(x), ((0, 0), (1, 0), (0, 0)))[:, :-1]
        cells = slices.cut(tokens.cell[:, None])[..., 0]  # (slices, cells)
        keys = None if key is None else jax.random.split(key, slices.number)

        def read(number, before, cells, key):
            z = self.embedder(image, number, context) + self.places[...]
            z = z if slices.is_even else z[cells]  # not always, for the reason in `Slices.join`
            return self._read_rows(z, before, 0, self._make_pairs(z.dtype), key)[0]

        return slices.join(jax.vmap(read)(jnp.arange(slices.number), before, cells, keys))

    def init_cache(self, context=None, dtype=float):
        dtype, cells = self._find_dtype(dtype), math.prod(self.slices.grid)
        image = jnp.zeros((math.prod(self.slices.shape), self.features), dtype)
        z = jnp.zeros((cells, len(self.norm[...])), dtype)
        return image, z, self._make_pairs(dtype), context

    def step(self, x_prev, t, cache):
        image, z, pairs, context = cache
        raster, number, cell, index = map(jnp.asarray, self.slices.find_tokens())
        x_prev = jnp.where(t == 0, 0, jnp.atleast_1d(x_prev)).astype(image.dtype)[None]
        image = jax.lax.dynamic_update_slice_in_dim(image, x_prev, raster[t - 1], 0)

        def start_slice(_):
            seen = image.reshape(*self.slices.shape, -1)
            return self.embedder(seen, number[t], context) + self.places[...]

        z = jax.lax.cond(index[t] == 0, start_slice, lambda z: z, z)
        here = jax.lax.dynamic_slice_in_dim(z, cell[t], 1)
        params, pairs = self._read_rows(here, x_prev, index[t], pairs, None)
        return params[0], (image, z, pairs, context)

    def _find_dtype(self, dtype):
        return jnp.result_type(self.V[...], dtype)

    def _make_pairs(self, dtype):
        """Return the empty keys and values of all layers."""
        cells = math.prod(self.slices.grid)
        return [layer.empty(cells, dtype) for layer in self.layers]

    def _read_rows(self, z, x_prev, index, pairs, key):
        """Return the parameters `(n, P)` of the next pixels of a slice, and the keys and values.

        Keys and values of an earlier slice need no removal: a row sees the rows before it only.

        Args:
            z: the features of the pixels `(n, width)`.
            x_prev: the pixels before `(n, features)`. The pixel before the first is ignored.
            index: the number of pixels of the slice before.
            pairs: the keys and values of each layer.
            key: draws the dropout. Without a key there is no dropout.
        """
        at = index + jnp.arange(len(z))
        rows = multiply_rows(x_prev, self.E[...]) + self.e[...][None]
        h, new = z + jnp.where((at == 0)[:, None], self.start[...][None], rows), []
        for i, (layer, (keys, values)) in enumerate(zip(self.layers, pairs, strict=True)):
            q, k, v = layer.project(h, at)
            keys = jax.lax.dynamic_update_slice_in_dim(keys, k.astype(keys.dtype), index, 1)
            values = jax.lax.dynamic_update_slice_in_dim(values, v.astype(keys.dtype), index, 1)
            h = h + self._drop(key, 2 * i, layer.attend(q, keys, values, at))
            h = h + self._drop(key, 2 * i + 1, layer.transform(h))
            new.append((keys, values))
        return multiply_rows(normalize(h, self.norm), self.V[...]) + self.b[...][None], new


def _find_context_shape(context_dim: int | Shape, shape: tuple[int, int]) -> Shape | None:
    """Return the shape of the context, or raise `ValueError` for an image of another size."""
    if not isinstance(context_dim, Iterable):
        return (context_dim,) if context_dim else None
    sizes = check_shape("context_dim", context_dim)
    if sizes[:-1] != shape:
        raise ValueError(f"Expected a context image of shape {(*shape, 'C')}, got {sizes}.")
    return sizes
