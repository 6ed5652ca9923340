"""Masked linear maps cut into blocks of slots, and padded for the GPU kernel.

Pallas with Triton wants arrays whose sizes are powers of two. Units are sorted by slot; each
block of slots gets the same number of places for its units, and zeros fill the empty ones.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow.conditioners.masked import Masked

_LEAST = 16  # the least side of a product that Triton accepts
_CHUNK = 64  # rows for `emit` that are multiplied at once


class Tiling(NamedTuple):
    """How the kernel is cut into programs and blocks."""

    events: int  # a program decodes
    units: int = 64  # in a block
    warps: int = 4

    @staticmethod
    def of(batch: int) -> "Tiling":
        """Return the tiling for a batch.

        On an H200, 5 layers of 2x512 at D=43: for a batch of 16,384, 32 events took 3.2 ms, 16
        took 4.8 and 64 took 4.3; for 1,000 only 16 were tried. Blocks of 32 or 128 units took
        about twice as long as blocks of 64 (`experiments/kernel_tilings.py`).
        """
        return Tiling(16 if batch <= 4096 else 32)


class Places(NamedTuple):
    """Where units lie when every block of slots has `size` places for them."""

    units: np.ndarray  # (blocks * size,), the unit in each place, or 0 in an empty one
    slots: np.ndarray  # its slot, or -1
    size: int

    @staticmethod
    def of(slots: np.ndarray, cuts: np.ndarray, *, whole: bool = True) -> "Places":
        """Lay out units, given their sorted `slots`, in the blocks between `cuts`.

        A block that is held as a `whole` has room for a power of two.
        """
        ends = np.searchsorted(slots, cuts)
        most = int(np.diff(ends).max())
        size = max(_LEAST, 1 << (most - 1).bit_length())
        size = size if whole or size <= _CHUNK else -(-most // _CHUNK) * _CHUNK
        places = ends[:-1, None] + np.arange(size)
        units = np.where(places < ends[1:, None], places, -1).reshape(-1)
        return Places(np.maximum(units, 0), np.where(units < 0, -1, slots[units]), size)

    def pad(self, a: jax.Array) -> jax.Array:
        """Move the rows of `a` `(units, B)` to their places, with zeros in the empty ones."""
        return jnp.where(self.slots[:, None] < 0, 0, a[self.units])


class Padded(NamedTuple):
    """A masked linear map with its units in their places."""

    kernel: jax.Array  # (rows, columns)
    bias: jax.Array  # (rows, 1) or (rows, B)
    before: jax.Array | None  # (columns, B)
    after: jax.Array | None  # (rows, B)


class Sizes(NamedTuple):
    """How large a block of a masked linear map is."""

    rows: int
    cols: int
    coordinates: int  # columns of one slot in a map that reads the event, else 0
    params: int  # rows of one slot in a map whose rows `emit` reads, else 0

    @property
    def height(self) -> int:
        """How many rows are multiplied at once."""
        return min(self.rows, _CHUNK) if self.params else self.rows


def block_cuts(layers: Sequence[Masked], num_slots: int, units: int) -> np.ndarray:
    """Return where to cut the slots into blocks of at most `units` columns of every map.

    A slot with more columns is a block alone.
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
    """Return a masked linear map with its units in their places."""
    rows, cols = _places(layer, cuts)
    first_seen = np.where(cols.slots < 0, cuts[-1], cols.slots)  # no row sees an empty place
    seen = jnp.asarray(rows.slots)[:, None] >= jnp.asarray(first_seen)[None]
    return Padded(
        jnp.where(seen, layer.kernel[rows.units[:, None], cols.units], 0),
        rows.pad(layer.bias if layer.bias.shape[1] == 1 else flat(layer.bias)),
        None if layer.before is None else cols.pad(flat(layer.before)),
        None if layer.after is None else rows.pad(flat(layer.after)),
    )


def block_sizes(layer: Masked, cuts: np.ndarray) -> Sizes:
    """Return how large the blocks of a map are."""
    rows, cols = _places(layer, cuts)
    coordinates = len(layer.cols) // int(cuts[-1]) if layer.placed else 0
    params = len(layer.rows) // int(cuts[-1]) if layer.emitted else 0
    return Sizes(rows.size, cols.size, coordinates, params)


def _places(layer: Masked, cuts: np.ndarray) -> tuple[Places, Places]:
    """Return where the rows and the columns of a map lie."""
    return Places.of(layer.rows, cuts, whole=not layer.emitted), Places.of(layer.cols, cuts)
