"""A masked linear map between units that are sorted by slot."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.lowering import multiply, on_gpu


class Masked(NamedTuple):
    """A masked linear map: row `i` of the kernel sees the columns with `cols <= rows[i]`.

    `rows` and `cols` hold the slots of the output units and of the input units. The map of
    `substitute` is `after * (kernel @ (before * h) + bias)`, and either scale may be absent. A
    direct call leaves the scales out.
    """

    cols: np.ndarray
    rows: np.ndarray
    kernel: jax.Array  # (rows, columns)
    bias: jax.Array  # (rows,), or (rows, B) in a substitution
    before: jax.Array | None = None  # (columns, B)
    after: jax.Array | None = None  # (rows, B)
    placed: bool = False  # whether the columns are coordinates of the event
    emitted: bool = False  # whether `emit` reads the rows

    def __call__(self, h: jax.Array, act: Callable = lambda h: h) -> jax.Array:
        """Compute `kernel @ act(h) + bias` for one event, in blocks that skip unseen columns.

        The backward pass keeps the operands only. It recomputes masked kernels, activations and
        slices, which are cheap to compute and take much memory to keep. The rows come from a split
        and not from slices: its derivative is a concatenation and not a sum of padded blocks.
        """
        product = jax.checkpoint(partial(self._product, act), prevent_cse=False)
        return product(self.kernel, h) + self.bias

    def _product(self, act, kernel, h):
        h, blocks = act(h), self._blocks()
        kernels = jnp.split(kernel, [rows.start for rows, _ in blocks[1:]])
        parts = [
            multiply(self._mask(part[:, cols], rows, cols), h[cols])
            for part, (rows, cols) in zip(kernels, blocks, strict=True)
        ]
        return jnp.concatenate(parts)

    def _blocks(self) -> list[tuple[slice, slice]]:
        """Return blocks of rows, each with the columns that its rows can see.

        On CPUs, three blocks for 512 rows or more, cut at multiples of 64, gave the fastest
        training step. Narrower blocks, or blocks of few columns, lose more speed in the matrix
        products than they save. On a GPU one dense product is the fastest.
        """
        size = len(self.rows)
        num_blocks = min(3, size // 170, len(self.cols) // 80) or 1
        if on_gpu() or self._seen((size + 1) // 2) > 0.75 * len(self.cols):
            num_blocks = 1
        starts = [64 * round(size * i / num_blocks / 64) for i in range(num_blocks)]
        cuts = pairwise([*starts, size])
        return [(slice(start, stop), slice(self._seen(stop))) for start, stop in cuts]

    def _seen(self, stop: int) -> int:
        """Return the number of columns that the rows before `stop` see."""
        return int(np.searchsorted(self.cols, self.rows[stop - 1], side="right"))

    def block(self, rows: slice, cols: slice) -> jax.Array:
        """Return the block `rows`, `cols` of the kernel with its mask applied."""
        return self._mask(self.kernel[rows, cols], rows, cols)

    def _mask(self, block, rows, cols):
        mask = self.rows[rows, None] >= self.cols[cols]
        return block if mask.all() else jnp.where(mask, block, 0)

    def reach(self, lo: int, mid: int, hi: int) -> jax.Array:
        """Return the kernel's block with columns in slots `lo..mid-1`, rows in `mid..hi-1`."""
        return self.kernel[self.spans(mid, hi)[0], self.spans(lo, mid)[1]]

    def spans(self, lo: int, hi: int) -> tuple[slice, slice]:
        """Return the range of rows and the range of columns in the slots `lo..hi-1`."""
        rows, cols = (np.searchsorted(slots, (lo, hi)) for slots in (self.rows, self.cols))
        return slice(*rows), slice(*cols)

    def starts(self, lo: int, hi: int) -> np.ndarray:
        """Return `(hi - lo, 2)`: the first row and column of each slot, counted from `lo`."""
        first = [np.searchsorted(slots, np.arange(lo, hi)) for slots in (self.rows, self.cols)]
        return np.stack(first, -1) - [span.start for span in self.spans(lo, hi)]

    def num_rows(self, lo: int, hi: int) -> int:
        """Return the number of rows in the slots `lo..hi-1`."""
        rows, _ = self.spans(lo, hi)
        return rows.stop - rows.start

    def fullest(self, lo: int, hi: int) -> int:
        """Return the largest number of rows that any slot of `lo..hi-1` has."""
        return int(np.bincount(self.rows, minlength=hi)[lo:hi].max())

    def transpose(self, last: int) -> "Masked":
        """Return the transposed map without bias, with slots `last..0` renumbered `0..last`.

        The units are reversed too, which keeps them sorted by slot.
        """
        rows, cols = np.arange(len(self.rows))[::-1], np.arange(len(self.cols))[::-1]
        kernel = self.kernel.T[cols][:, rows]
        after = None if self.before is None else self.before[cols]
        return Masked(
            last - self.rows[rows],
            last - self.cols[cols],
            kernel,
            jnp.zeros((len(cols), 1), kernel.dtype),
            after=after,
            placed=self.emitted,
            emitted=self.placed,
        )
