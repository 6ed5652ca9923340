"""The embedder of a subscale pixel network: the features of a slice from the slices before it."""

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.convolution import convolve
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import Shape
from afflow.conditioners.pixels.lstm import draw
from afflow.nets.attention import normalize
from afflow.nets.slices import Slices


class SliceEmbedder(nnx.Module):
    r"""A residual network of convolutions over the windows around the pixels of a slice.

    $$z_0 = W * \mathrm{windows}(x_{<s}) + e_s + U\, \mathrm{context}, \qquad
    z \leftarrow z + W_2\, \mathrm{gelu}(W_1 * \bar z + M\, \mathrm{mean}(\bar z) + b_1) + b_2,
    \qquad \bar z = \mathrm{norm}(z).$$

    The mean is over the cells of the grid. A channel tells the given pixels from the others.

    Args:
        slices: the slices of the image.
        features: numbers in a pixel.
        width: features of a cell.
        num_blocks: number of residual blocks.
        context_shape: `(H, W, C)` of a context image, `(C,)` of a context vector, or `None`.
        rngs: its `params` stream draws the initial weights.
    """

    def __init__(
        self,
        slices: Slices,
        features: int,
        width: int,
        num_blocks: int,
        context_shape: Shape | None,
        rngs: nnx.Rngs,
    ):
        *plane, context_dim = context_shape or (0,)
        self.slices, self.takes_image = slices, bool(plane)
        channels = slices.number * (features + 1 + (context_dim if plane else 0))
        self.W = draw(rngs, 9 * channels, 3, 3, channels, width)
        self.U = draw(rngs, context_dim, 0 if plane else context_dim, width)
        self.e = draw(rngs, 1, slices.number, width)
        scale = num_blocks * width  # the sum of all blocks starts with variance one or less
        self.blocks = nnx.List([_EmbedderBlock(width, scale, rngs) for _ in range(num_blocks)])

    def __call__(self, image: jax.Array, number: jax.Array, context: jax.Array | None) -> jax.Array:
        """Return the features `(cells, width)` of a slice from the slices before it.

        Args:
            image: `(H, W, C)`; the values of the slice and of later slices are ignored.
            number: the number of the slice.
            context: the context of the event.
        """
        marked = jnp.pad(image, ((0, 0), (0, 0), (0, 1)), constant_values=1)
        seen = jnp.where((self.slices.labels < number)[..., None], marked, 0)
        if self.takes_image and context is not None:
            seen = jnp.concatenate([seen, context.astype(seen.dtype)], -1)
        z = convolve(self.slices.cut_windows(seen, number), self.W[...], (1, 1))
        z = z.reshape(-1, z.shape[-1]) + self.e[...][number][None]
        if not self.takes_image and context is not None:
            z = z + (context @ self.U[...])[None]
        for block in self.blocks:
            z = block(z, self.slices.grid)
        return z


class _EmbedderBlock(nnx.Module):
    """The weights of a residual block."""

    def __init__(self, width, scale, rngs):
        self.norm = nnx.Param(jnp.ones(width))
        self.W1 = draw(rngs, 9 * width, 3, 3, width, width)
        self.M = draw(rngs, width, width, width)
        self.W2 = draw(rngs, scale, width, width)
        self.b1, self.b2 = (nnx.Param(jnp.zeros(width)) for _ in range(2))

    def __call__(self, z, grid):
        """Return the next features `(cells, width)` of a grid of cells."""
        rows = normalize(z, self.norm)
        padded = jnp.pad(rows.reshape(*grid, -1), ((1, 1), (1, 1), (0, 0)))
        near = convolve(padded, self.W1[...], (1, 1)).reshape(z.shape)
        everywhere = rows.mean(0, keepdims=True) @ self.M[...] + self.b1[...][None]
        return z + multiply_rows(jax.nn.gelu(near + everywhere), self.W2[...]) + self.b2[...][None]
