"""A masked network evaluated slot by slot, for the work of one dense pass.

The serial direction of an autoregressive model needs row `t` of the conditioner only
when `x[:t]` is known. Units sorted by slot make every masked matrix block lower
triangular, so decoding is a forward substitution: at slot `t` place `x[t - 1]`, compute
the hidden units of slot `t` layer by layer from those already known, read row `t` of the
output, and emit `x[t]`. No unit is computed twice.

Slots are cut into segments. What a segment reads from the slots before it is one large
matrix product; only the triangle within the segment is left to the serial loop. The
batch is the last axis, so that a step is a product (units, known) @ (known, B).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow.conditioners.conditioner import Emit

Network = Callable[[Callable, jax.Array], jax.Array]
"""`network(linear, x)` runs a network given `linear(layer, h)`, its masked linear maps."""


class Masked(NamedTuple):
    """A masked linear map: a unit of slot `rows[i]` sees the units with `cols <= rows[i]`."""

    cols: np.ndarray
    rows: np.ndarray
    kernel: jax.Array  # (rows, columns)
    bias: jax.Array  # (rows,) or (rows, B)

    def __call__(self, h: jax.Array) -> jax.Array:
        """Apply to all units at once, in blocks of rows that skip what none of them sees."""
        num_blocks = max(1, min(4, len(self.rows) // 128))
        cuts = [len(self.rows) * i // num_blocks for i in range(num_blocks + 1)]
        blocks = [self._rows(slice(*cut), h) for cut in zip(cuts, cuts[1:], strict=False)]
        return jnp.concatenate(blocks) + self.bias

    def _rows(self, rows, h):
        seen = slice(np.searchsorted(self.cols, self.rows[rows][-1], side="right"))
        return self.block(rows, seen) @ h[seen]

    def block(self, rows: slice, cols: slice) -> jax.Array:
        """Return a block of the kernel with its mask applied."""
        mask = self.rows[rows, None] >= self.cols[cols]
        return jnp.where(mask, self.kernel[rows, cols], 0)

    def spans(self, lo: int, hi: int) -> tuple[slice, slice]:
        """Return the rows and the columns of the slots `lo..hi-1`."""
        rows, cols = (np.searchsorted(slots, (lo, hi)) for slots in (self.rows, self.cols))
        return slice(*rows), slice(*cols)

    def starts(self, lo: int, hi: int) -> np.ndarray:
        """Return the first row and column of each slot `lo..hi-1`, counted from `lo`'s."""
        first = [np.searchsorted(slots, np.arange(lo, hi)) for slots in (self.rows, self.cols)]
        return np.stack(first, -1) - [span.start for span in self.spans(lo, hi)]


class Segment(NamedTuple):
    """What the serial loop reads of a masked linear map between two slots.

    Every step computes as many rows as the fullest slot has, from the first row of its
    own slot on. Rows of later slots among them meet masked weights only, and are
    overwritten when their step comes. The padding keeps the last step in bounds.
    """

    kernel: jax.Array  # (rows + padding, columns + padding)
    base: jax.Array  # (rows + padding, B): the bias and what earlier slots contribute

    @staticmethod
    def cut(masked: Masked, known: jax.Array, lo: int, hi: int) -> "Segment":
        """Cut out the slots `lo..hi-1`, given the `known` units of earlier slots."""
        rows, cols = masked.spans(lo, hi)
        base = masked.bias[rows]
        if cols.start:
            base += masked.kernel[rows, : cols.start] @ known
        padding = (0, fullest(masked.rows)), (0, fullest(masked.cols))
        kernel = jnp.pad(masked.block(rows, cols), padding)
        return Segment(kernel, jnp.pad(base, (padding[0], (0, 0))))


def fullest(slots: np.ndarray) -> int:
    """Return the number of units in the fullest slot."""
    return int(np.bincount(slots).max())


def advance(
    network: Network,
    layers: Sequence[Masked],
    segments: Sequence[Segment],
    starts: jax.Array,
    x_prev: jax.Array,
    buffers: Sequence[jax.Array],
) -> tuple[jax.Array, list[jax.Array]]:
    """Compute one slot: place `x_prev` `(B,)`, return its output rows `(P, B)`.

    `starts` holds the first row and column of the slot in each layer, `buffers` each
    layer's inputs so far, `(columns + padding, B)`.
    """
    buffers = list(buffers)

    def linear(layer, h):
        (kernel, base), (row, col) = segments[layer], starts[layer]
        buffer = buffers[layer]
        h = jnp.broadcast_to(h, (len(h), buffer.shape[1])).astype(buffer.dtype)
        buffers[layer] = jax.lax.dynamic_update_slice_in_dim(buffer, h, col, 0)
        size = fullest(layers[layer].rows)
        rows = jax.lax.dynamic_slice_in_dim(kernel, row, size)
        return jax.lax.dynamic_slice_in_dim(base, row, size) + rows @ buffers[layer]

    return network(linear, x_prev[None]), buffers


def empty_buffers(layers: Sequence[Masked], lo: int, hi: int, batch: int, dtype: Any) -> list:
    """Return zeros for the inputs of every layer at the slots `lo..hi-1`."""
    widths = [masked.spans(lo, hi)[1] for masked in layers]
    return [
        jnp.zeros((cols.stop - cols.start + fullest(masked.cols), batch), dtype)
        for cols, masked in zip(widths, layers, strict=True)
    ]


def sweep(
    network: Network,
    layers: Sequence[Masked],
    emit: Emit,
    inputs: Any,
    num_segments: int,
) -> tuple[jax.Array, Any]:
    """Decode a batch: `x[t], aux[t] = emit(inputs[t], row t of the network at x[:t])`.

    Args:
        network: the layers between the masked linear maps.
        layers: the masked linear maps, biases `(rows, 1)` or `(rows, B)`. One that reads
            the input has one column a slot: slot `t` holds `x[t - 1]`, slot 0 nothing.
        emit: maps an input and the parameters `(P,)` of one coordinate to `x_t, aux_t`.
        inputs: a pytree of `(D, ..., B)`.
        num_segments: how many segments to cut the slots into.

    Returns:
        `x` `(D, B)` and `aux` `(D, ..., B)`.
    """
    dim, batch = len(layers[0].cols), jax.tree.leaves(inputs)[0].shape[-1]
    emit = jax.vmap(emit, in_axes=-1, out_axes=-1)
    dtype = jnp.result_type(*(a for m in layers for a in (m.kernel, m.bias)))
    params = jax.ShapeDtypeStruct((fullest(layers[-1].rows), batch), dtype)
    first, _ = jax.eval_shape(emit, jax.tree.map(lambda a: a[0], inputs), params)
    x_prev = jnp.zeros(first.shape, first.dtype)
    dtype = jnp.result_type(dtype, first.dtype)
    known = [jnp.zeros((0, batch), dtype) for _ in layers]
    cuts, outs = [dim * i // num_segments for i in range(num_segments + 1)], []
    for lo, hi in zip(cuts, cuts[1:], strict=False):
        segments = [Segment.cut(m, k, lo, hi) for m, k in zip(layers, known, strict=True)]

        def body(carry, scanned, segments=segments):
            starts, inputs_t = scanned
            params, buffers = advance(network, layers, segments, starts, *carry)
            x_t, aux_t = emit(inputs_t, params)
            return (x_t, buffers), (x_t, aux_t)

        starts = np.stack([masked.starts(lo, hi) for masked in layers], 1)  # (hi - lo, layers, 2)
        scanned = starts, jax.tree.map(lambda a, lo=lo, hi=hi: a[lo:hi], inputs)
        buffers = empty_buffers(layers, lo, hi, batch, dtype)
        (x_prev, buffers), out = jax.lax.scan(body, (x_prev, buffers), scanned)
        outs.append(out)
        known = [
            jnp.concatenate([k, buffer[: len(buffer) - fullest(masked.cols)]])
            for k, buffer, masked in zip(known, buffers, layers, strict=True)
        ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *outs)
