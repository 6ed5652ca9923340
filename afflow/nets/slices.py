"""Interleaved slices of an image, and the windows around the pixels of a slice."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Tokens(NamedTuple):
    """The places of all pixels `(T,)`, slice by slice and in raster order within a slice."""

    raster: np.ndarray  # the place in the image
    slice: np.ndarray  # the number of the slice
    cell: np.ndarray  # the place in the grid
    index: np.ndarray  # the number of pixels of the slice before


@dataclass(frozen=True)
class Slices:
    """The slices `x[a::S, b::S]` of an image, in raster order of `(a, b)`.

    The grid is as large as the largest slice. A slice has at most one pixel in a cell of the grid,
    and a smaller slice lacks the last row or the last column.

    Args:
        shape: `(H, W)`.
        factor: the distance `S` of the pixels of a slice. A longer distance than `H` or `W` counts
            as `H` or `W`, so that every slice has a pixel.
    """

    shape: tuple[int, int]
    factor: int

    @property
    def distances(self) -> tuple[int, int]:
        """Return the distances of the rows and of the columns of a slice."""
        height, width = self.shape
        return min(self.factor, height), min(self.factor, width)

    @property
    def number(self) -> int:
        """Return the number of slices."""
        rows, columns = self.distances
        return rows * columns

    @property
    def grid(self) -> tuple[int, int]:
        """Return the numbers of rows and columns of the largest slice."""
        (height, width), (rows, columns) = self.shape, self.distances
        return -(-height // rows), -(-width // columns)

    @property
    def is_even(self) -> bool:
        """Whether all slices have one size."""
        (height, width), (rows, columns) = self.shape, self.distances
        return height % rows == 0 and width % columns == 0

    @property
    def labels(self) -> np.ndarray:
        """Return the number of the slice of each pixel, `(H, W)`."""
        (rows, columns), (i, j) = self.distances, np.indices(self.shape)
        return i % rows * columns + j % columns

    @property
    def order(self) -> tuple[int, ...]:
        """Return the raster index of each pixel, slice by slice."""
        return tuple(self.find_tokens().raster.tolist())

    def find_tokens(self) -> Tokens:
        """Return the places of all pixels in the order of the slices."""
        labels, (rows, columns) = self.labels.reshape(-1), self.distances
        order = np.argsort(labels, kind="stable")
        i, j = np.divmod(order, self.shape[1])
        slices, cell = labels[order], i // rows * self.grid[1] + j // columns
        return Tokens(order, slices, cell, np.arange(len(order)) - np.searchsorted(slices, slices))

    def cut(self, x: Any) -> jax.Array:
        """Return the rows of each slice `(slices, cells, C)`, with zeros after a smaller slice.

        Args:
            x: rows `(T, C)` of the tokens.
        """
        size, cells = self.number, math.prod(self.grid)
        if self.is_even:
            return jnp.reshape(x, (size, cells, -1))
        tokens, table = self.find_tokens(), np.full((size, cells), len(x))
        table[tokens.slice, tokens.index] = np.arange(len(x))
        return jnp.pad(x, ((0, 1), (0, 0)))[table]

    def join(self, rows: jax.Array) -> jax.Array:
        """Return the rows `(T, C)` of the tokens, from the rows of each slice."""
        tokens, (size, cells, _) = self.find_tokens(), rows.shape
        flat = rows.reshape(size * cells, -1)
        # The derivative of indexing, a loop over the tokens on a CPU, is for uneven slices only.
        return flat if self.is_even else flat[tokens.slice * cells + tokens.index]

    def cut_windows(self, image: jax.Array, number: jax.Array) -> jax.Array:
        """Return the windows around the pixels of a slice, `(grid rows + 2, grid columns + 2, C')`.

        The grid has a margin of one cell, so that the windows tile the whole image. A window has
        `S` rows and columns around its pixel. It is zero outside of the image.

        Args:
            image: `(H, W, C)`.
            number: the number of the slice.
        """
        (rows, columns), (grid_rows, grid_columns) = self.distances, [n + 2 for n in self.grid]
        sizes = rows * grid_rows, columns * grid_columns
        left = [n + n // 2 for n in self.distances]
        right = [size - n for size, n in zip(sizes, self.shape, strict=True)]  # enough for any
        padded = jnp.pad(image, (*zip(left, right, strict=True), (0, 0)))
        start = number // columns, number % columns, 0
        tiled = jax.lax.dynamic_slice(padded, start, (*sizes, image.shape[2]))
        blocks = tiled.reshape(grid_rows, rows, grid_columns, columns, -1).swapaxes(1, 2)
        return blocks.reshape(grid_rows, grid_columns, -1)
