"""Masked linear maps cut into blocks of slots, and padded for the GPU kernel.

Pallas with Triton needs arrays with sizes that are powers of two. Units are sorted by slot. Each
block of slots gets the same number of places for its units, and zeros fill the empty places.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow.conditioners.masked import Masked

_LEAST = 16  # the least side of a product that Triton accepts
_CHUNK = 64  # the most rows for `emit` in one product


class Tiling(NamedTuple):
    """The sizes that cut the kernel's work into programs and blocks."""

    events: int  # events that one program decodes
    units: int = 64  # columns of a map in one block
    warps: int = 4  # warps of one program

    @staticmethod
    def of(batch: int) -> "Tiling":
        """Return the tiling for a batch.

        Measured on an H200 with 5 layers of 2x512 at D=43. For a batch of 16,384, 32 events took
        3.2 ms, 16 took 4.8 ms and 64 took 4.3 ms. For a batch of 1,000 only 16 events were
        tried. Blocks of 32 or 128 units took about twice as long as blocks of 64
        (`experiments/kernel_tilings.py`).
        """
        return Tiling(16 if batch <= 4096 else 32)


class Places(NamedTuple):
    """The positions of units when every block of slots has `size` places."""

    units: np.ndarray  # (blocks * size,), the unit in each place, or 0 in an empty place
    slots: np.ndarray  # (blocks * size,), the slot of that unit, or -1
    size: int

    @staticmethod
    def of(slots: np.ndarray, cuts: np.ndarray, *, whole: bool = True) -> "Places":
        """Lay out units, given their sorted `slots`, in the blocks between `cuts`.

        The number of places is a power of two. For a block that is not read as a `whole`, a
        number above `_CHUNK` is instead a multiple of `_CHUNK`.
        """
        ends = np.searchsorted(slots, cuts)
        most = int(np.diff(ends).max())
        size = max(_LEAST, 1 << (most - 1).bit_length())
        size = size if whole or size <= _CHUNK else -(-most // _CHUNK) * _CHUNK
        places = ends[:-1, None] + np.arange(size)
        units = np.where(places < ends[1:, None], places, -1).reshape(-1)
        return Places(np.maximum(units, 0), np.where(units < 0, -1, slots[units]), size)

    def pad(self, a: jax.Array) -> jax.Array:
        """Move the rows of `a` `(units, B)` to their places, with zeros in the empty places."""
        return jnp.where(self.slots[:, None] < 0, 0, a[self.units])


class Padded(NamedTuple):
    """A masked linear map whose units lie in their places."""

    kernel: jax.Array  # (rows, columns)
    bias: jax.Array  # (rows, 1) or (rows, B)
    before: jax.Array | None  # (columns, B)
    after: jax.Array | None  # (rows, B)


class Sizes(NamedTuple):
    """The sizes of a block of a masked linear map."""

    rows: int
    cols: int
    coordinates: int  # columns of one slot in a map that reads the event, else 0
    params: int  # rows of one slot in a map whose rows `emit` reads, else 0

    @property
    def height(self) -> int:
        """Return the number of rows in one product."""
        return min(self.rows, _CHUNK) if self.params else self.rows


def choose_block_cuts(layers: Sequence[Masked], num_slots: int, units: int) -> np.ndarray:
    """Return the first slot of each block, then `num_slots`.

    A block has at most `units` columns of every map. A slot with more columns is a block alone.
    """
    counts = np.max([np.bincount(m.cols, minlength=num_slots)[:num_slots] for m in layers], 0)
    cuts, held = [0], 0
    for slot, count in enumerate(counts):
        if held and held + count > units:
            cuts.append(slot)
            held = 0
        held += count
    return np.array([*cuts, num_slots])


def pad_map(layer: Masked, cuts: np.ndarray, flat: Callable) -> Padded:
    """Return a masked linear map with its units moved to their places.

    `flat` reshapes and pads `(..., B)` to the rows and the width that the kernel reads.
    """
    rows, cols = _find_places(layer, cuts)
    first_seen = np.where(cols.slots < 0, cuts[-1], cols.slots)  # no row sees an empty place
    seen = jnp.asarray(rows.slots)[:, None] >= jnp.asarray(first_seen)[None]
    return Padded(
        jnp.where(seen, layer.kernel[rows.units[:, None], cols.units], 0),
        rows.pad(layer.bias if layer.bias.shape[1] == 1 else flat(layer.bias)),
        None if layer.before is None else cols.pad(flat(layer.before)),
        None if layer.after is None else rows.pad(flat(layer.after)),
    )


def choose_block_sizes(layer: Masked, cuts: np.ndarray) -> Sizes:
    """Return the sizes that all blocks of a map share."""
    rows, cols = _find_places(layer, cuts)
    coordinates = len(layer.cols) // int(cuts[-1]) if layer.placed else 0
    params = len(layer.rows) // int(cuts[-1]) if layer.emitted else 0
    return Sizes(rows.size, cols.size, coordinates, params)


def _find_places(layer: Masked, cuts: np.ndarray) -> tuple[Places, Places]:
    """Return the places of the rows and of the columns of a map."""
    return Places.of(layer.rows, cuts, whole=not layer.emitted), Places.of(layer.cols, cuts)
