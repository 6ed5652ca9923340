"""Regions of an image that a causal network computes: the whole image, one row, or one pixel."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from afflow._tools.products import multiply_rows
from afflow.nets.raster import Reach


@dataclass(frozen=True)
class WholeImage:
    """The whole image. A buffer is the image, so nothing is kept from before."""

    shape: tuple[int, int]

    def put(self, reach: Reach, buffer: Any, z: jax.Array) -> jax.Array:
        """Return a buffer with the values `z` `(H, W, C)`."""
        return z

    def convolve(
        self, reach: Reach, buffer: jax.Array, kernel: jax.Array, stride: int = 1
    ) -> jax.Array:
        """Return the region of a convolution of the values in a buffer."""
        return reach.convolve(buffer, kernel, stride)

    def keep(self, row: Any, z: jax.Array) -> jax.Array:
        """Return the features that are kept for other regions."""
        return z

    def take(self, kept: jax.Array) -> jax.Array:
        """Return the kept features of the region."""
        return kept

    def at_half(self, compute: Callable, state: Any) -> Any:
        """Return `compute(half, state)` with the region `half` of the image of half the size."""
        height, width = self.shape
        return compute(WholeImage(((height + 1) // 2, (width + 1) // 2)), state)

    def grow(self, low: jax.Array, kernel: jax.Array) -> jax.Array:
        """Return the region from features kept at half the size.

        A pixel of the smaller image gives a block of two by two pixels, each by a matrix of the
        kernel `(2, 2, C, C')`.
        """
        height, width = self.shape
        channels, last = kernel.shape[2:]
        matrix = kernel.astype(low.dtype).transpose(2, 0, 1, 3).reshape(channels, 4 * last)
        blocks = multiply_rows(low, matrix).reshape(*low.shape[:2], 2, 2, last)
        full = blocks.swapaxes(1, 2).reshape(2 * low.shape[0], 2 * low.shape[1], last)
        return full[:height, :width]


@dataclass(frozen=True)
class ImageRow:
    """Row `i` of an image with `width` columns, after the rows above it. See `WholeImage`."""

    width: int
    i: jax.Array

    def put(self, reach: Reach, buffer: jax.Array, z: jax.Array) -> jax.Array:
        return reach.put_row(buffer, z, self.i)

    def convolve(
        self, reach: Reach, buffer: jax.Array, kernel: jax.Array, stride: int = 1
    ) -> jax.Array:
        return reach.convolve_row(buffer, self.i, kernel, stride)

    def keep(self, row: jax.Array, z: jax.Array) -> jax.Array:
        return z.astype(row.dtype)

    def take(self, kept: jax.Array) -> jax.Array:
        return kept

    def at_half(self, compute: Callable, state: Any) -> Any:
        half = ImageRow((self.width + 1) // 2, self.i // 2)
        return jax.lax.cond(
            self.i % 2 == 0, lambda state: compute(half, state), lambda state: state, state
        )

    def grow(self, low: jax.Array, kernel: jax.Array) -> jax.Array:
        pair = kernel.astype(low.dtype)[self.i % 2]
        full = jnp.einsum("hwc,bcd->hwbd", low, pair).reshape(1, -1, kernel.shape[3])
        return full[:, : self.width]


@dataclass(frozen=True)
class ImagePixel:
    """Pixel `(i, j)` of an image, after all pixels before it in raster order. See `WholeImage`."""

    i: jax.Array
    j: jax.Array

    def put(self, reach: Reach, buffer: jax.Array, z: jax.Array) -> jax.Array:
        return reach.put(buffer, z, self.i, self.j)

    def convolve(
        self, reach: Reach, buffer: jax.Array, kernel: jax.Array, stride: int = 1
    ) -> jax.Array:
        return reach.convolve_at(buffer, self.i, self.j, kernel)

    def keep(self, row: jax.Array, z: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(row, z.astype(row.dtype), self.j, 1)

    def take(self, kept: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(kept, self.j, 1, 1)

    def at_half(self, compute: Callable, state: Any) -> Any:
        half = ImagePixel(self.i // 2, self.j // 2)
        return jax.lax.cond(
            (self.i % 2 == 0) & (self.j % 2 == 0),
            lambda state: compute(half, state),
            lambda state: state,
            state,
        )

    def grow(self, low: jax.Array, kernel: jax.Array) -> jax.Array:
        here = jax.lax.dynamic_slice_in_dim(low, self.j // 2, 1, 1)
        return here @ kernel.astype(low.dtype)[self.i % 2, self.j % 2]
