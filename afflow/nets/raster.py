"""Causal convolutions of images, for all pixels at once or pixel by pixel in raster order."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from afflow._tools.convolution import convolve
from afflow._tools.shapes import check_size


@dataclass(frozen=True)
class Reach:
    """The pixels that a causal convolution reads at pixel `(i, j)`.

    The convolution reads `rows` rows, the last of them row `i`, and `columns` columns, the first of
    them column `j - left`.
    A kernel has the shape `(rows, columns, C, C')`.
    """

    rows: int
    columns: int
    left: int

    def convolve(self, z: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
        """Return the convolution `(H, W, C')` of an image `(H, W, C)`, with zeros outside of it.

        With a stride, the result has the pixels of every `stride`-th row and column.
        """
        right = self.columns - 1 - self.left
        padded = jnp.pad(z, ((self.rows - 1, 0), (self.left, right), (0, 0)))
        return convolve(padded, kernel, (stride, stride))

    def make_buffer(self, width: int, channels: int, dtype: Any) -> jax.Array:
        """Return the empty buffer of the last rows, with margins: `(rows, W + columns - 1, C)`."""
        return jnp.zeros((self.rows, width + self.columns - 1, channels), dtype)

    def put(
        self, buffer: jax.Array, z: jax.Array, i: jax.Array, j: jax.Array, first: Any = 0
    ) -> jax.Array:
        """Return the buffer with values `(1, 1, C)` of pixel `(i, j)`, from channel `first` on.

        Row `i` stands at place `i` modulo `rows`.
        """
        place = (i % self.rows, j + self.left, first)
        return jax.lax.dynamic_update_slice(buffer, z.astype(buffer.dtype), place)

    def convolve_at(
        self, buffer: jax.Array, i: jax.Array, j: jax.Array, kernel: jax.Array
    ) -> jax.Array:
        """Return pixel `(i, j)` of the convolution, `(1, 1, C')`."""
        size = (1, self.columns, buffer.shape[2])
        places = [(i + 1 + row) % self.rows for row in range(self.rows)]  # the oldest first
        rows = [jax.lax.dynamic_slice(buffer, (place, j, 0), size).ravel() for place in places]
        weights = kernel.astype(buffer.dtype).reshape(-1, kernel.shape[3])
        return (jnp.concatenate(rows) @ weights)[None, None]

    def put_row(self, buffer: jax.Array, z: jax.Array, i: jax.Array) -> jax.Array:
        """Return the buffer with row `i` of an image, `z` `(1, W, C)`."""
        z = z.astype(buffer.dtype)
        return jax.lax.dynamic_update_slice(buffer, z, (i % self.rows, self.left, 0))

    def convolve_row(
        self, buffer: jax.Array, i: jax.Array, kernel: jax.Array, stride: int = 1
    ) -> jax.Array:
        """Return row `i` of the convolution, `(1, W, C')`, with every `stride`-th column."""
        return convolve(buffer[self._order(i)], kernel, (1, stride))

    def _order(self, i: jax.Array) -> jax.Array:
        """Return the places of the rows in the buffer, the oldest first."""
        return (i + 1 + jnp.arange(self.rows)) % self.rows


def find_square_reach(size: int) -> Reach:
    """Return the reach of a masked square kernel with `size` rows and columns.

    Raises:
        ValueError: for an even size.
    """
    check_size("kernel_size", size)
    if size % 2 == 0:
        raise ValueError(f"Expected kernels with an odd number of columns, got {size}.")
    return Reach(size // 2 + 1, size, size // 2)
