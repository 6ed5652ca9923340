"""A masked network evaluated slot by slot, for the work of one dense pass.

The serial direction of an autoregressive model needs row `t` of the conditioner only
when `x[:t]` is known. Units sorted by slot make every masked matrix block lower
triangular, so decoding is a forward substitution: at slot `t` place `x[t - 1]`, compute
the hidden units of slot `t` layer by layer from those already known, read row `t` of the
output, and emit `x[t]`. No unit is computed twice.

Slots are halved into segments, as in a recursive triangular solve: what the second half
reads from the first is one large matrix product, and only the triangle within a segment
is left to the serial loop. The batch is the last axis, so that a step is a product
(units, known) @ (known, B).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.lowering import matmul
from afflow.conditioners.masked import Masked
from afflow.core.conditioner import Emit

Network = Callable[[Callable, jax.Array], jax.Array]
"""`network(linear, x)` runs a network given `linear(layer, h)`, its masked linear maps."""


class Segment(NamedTuple):
    """The part of a masked linear map that the serial loop reads between two slots.

    Every step computes as many rows as the fullest slot has, from the first row of its
    own slot on. Rows of later slots among them meet masked weights only, and are
    overwritten when their step comes. At the end of the segment it begins earlier instead
    (as dynamic slices do), and computes rows of earlier slots again.
    """

    kernel: jax.Array  # (rows, columns)
    base: jax.Array  # (rows, B): the bias and what earlier slots contribute
    before: jax.Array | None  # (columns, B)
    after: jax.Array | None  # (rows, B)

    @staticmethod
    def cut(masked: Masked, base: jax.Array, lo: int, hi: int) -> "Segment":
        """Cut out the slots `lo..hi-1`; `base` holds their rows."""
        rows, cols = masked.spans(lo, hi)
        return Segment(
            masked.block(rows, cols),
            base,
            None if masked.before is None else masked.before[cols],
            None if masked.after is None else masked.after[rows],
        )


def rounded(h: jax.Array, dtype: Any) -> jax.Array:
    """Return `h` with the precision of `dtype`, in its own type: products of few rows are faster.

    XLA may remove a pair of conversions, and would then decode with other numbers than score.
    """
    if jnp.dtype(dtype).itemsize > 2:
        return h
    info = jnp.finfo(dtype)
    return jax.lax.reduce_precision(h, info.nexp, info.nmant)


def add_rows(out: jax.Array, base: jax.Array, row: jax.Array) -> jax.Array:
    """Return `out` plus the rows of `base` from `row` on."""
    return out + jax.lax.dynamic_slice_in_dim(base, row, len(out))


def add_singly(out: jax.Array, base: jax.Array, row: jax.Array) -> jax.Array:
    """Return the same, row by row: for a reader that takes rows out of the sum.

    XLA's CPU compiler does not vectorise that reader where the rows are one slice.
    """
    picked = [jax.lax.dynamic_slice_in_dim(base, row + k, 1)[0] for k in range(len(out))]
    return jnp.stack([a + b for a, b in zip(out, picked, strict=True)])


def advance(
    network: Network,
    layers: Sequence[Masked],
    ends: tuple[int, int],
    segments: Sequence[Segment],
    starts: jax.Array,
    x_prev: jax.Array,
    buffers: Sequence[jax.Array],
) -> tuple[jax.Array, list[jax.Array]]:
    """Compute one slot: place `x_prev` `(..., B)`, return its output rows `(P, B)`.

    `segments` are cut from the `layers` between two `ends`; `starts` holds the first row and
    column of the slot in each, and `buffers` the inputs of each so far, `(columns, B)`.
    """
    buffers = list(buffers)

    def linear(layer, h):
        (kernel, base, before, after), (row, col) = segments[layer], starts[layer]
        buffer = buffers[layer]
        if before is not None:
            h = h * jax.lax.dynamic_slice_in_dim(before, col, len(h))
        h = jnp.broadcast_to(rounded(h, kernel.dtype), (len(h), buffer.shape[1]))
        h = h.astype(buffer.dtype)
        buffers[layer] = jax.lax.dynamic_update_slice_in_dim(buffer, h, col, 0)
        size = layers[layer].fullest(*ends)
        rows = jax.lax.dynamic_slice_in_dim(kernel, row, size).astype(buffer.dtype)
        add = add_singly if layers[layer].emitted else add_rows
        out = add(matmul(rows, buffers[layer]), base, row)
        return out if after is None else out * jax.lax.dynamic_slice_in_dim(after, row, size)

    return network(linear, jnp.atleast_2d(x_prev)), buffers


def empty_buffers(layers: Sequence[Masked], lo: int, hi: int, batch: int, dtype: Any) -> list:
    """Return zeros for the inputs, of type `dtype`, of every layer at the slots `lo..hi-1`."""
    spans = [masked.spans(lo, hi)[1] for masked in layers]
    return [jnp.zeros((cols.stop - cols.start, batch), dtype) for cols in spans]


def substitute(
    network: Network, layers: Sequence[Masked], emit: Emit, inputs: Any, x_first: jax.Array
) -> tuple[jax.Array, Any]:
    """Decode a batch: `x[t], aux[t] = emit(inputs[t], row t of the network at x[:t])`.

    Args:
        network: the layers between the masked linear maps.
        layers: the masked linear maps, biases `(rows, 1)` or `(rows, B)`. Those that read
            the input have as many columns in every slot: slot `t` holds `x[t - 1]`.
        emit: maps an input and the parameters `(P,)` of one slot to `x_t, aux_t`.
        inputs: a pytree of `(T, ..., B)`.
        x_first: `(..., B)`, what slot 0 holds.

    Returns:
        `x` and `aux`, stacked to `(T, ..., B)`.
    """
    emit = jax.vmap(emit, in_axes=-1, out_axes=-1)
    arrays = [a for masked in layers for a in (masked.kernel, masked.bias)]
    dtype, batch = jnp.result_type(x_first, *arrays), x_first.shape[-1]

    def solve(cuts, bases, x_prev):
        """Return the last `x`, the inputs of every layer, and the outputs, of some segments."""
        if len(cuts) == 2:
            return serial(cuts[0], cuts[1], bases, x_prev)
        middle = len(cuts) // 2
        lo, mid, hi = cuts[0], cuts[middle], cuts[-1]
        triples = list(zip(layers, bases, [m.num_rows(lo, mid) for m in layers], strict=True))
        x_prev, *early = solve(cuts[: middle + 1], [base[:n] for _, base, n in triples], x_prev)
        lower = [
            base[n:] + matmul(masked.reach(lo, mid, hi), known)
            for (masked, base, n), known in zip(triples, early[0], strict=True)
        ]
        x_prev, *late = solve(cuts[middle:], lower, x_prev)
        return x_prev, *jax.tree.map(lambda *parts: jnp.concatenate(parts), early, late)

    def serial(lo, hi, bases, x_prev):
        """Return the same of one segment."""
        pairs = zip(layers, bases, strict=True)
        segments = [Segment.cut(masked, base, lo, hi) for masked, base in pairs]

        def body(carry, scanned):
            starts, inputs_t = scanned
            params, buffers = advance(network, layers, (lo, hi), segments, starts, *carry)
            x_t, aux_t = emit(inputs_t, params)
            return (x_t, buffers), (x_t, aux_t)

        starts = np.stack([masked.starts(lo, hi) for masked in layers], 1)  # (hi - lo, layers, 2)
        scanned = starts, jax.tree.map(lambda a: a[lo:hi], inputs)
        buffers = empty_buffers(layers, lo, hi, batch, dtype)
        (x_prev, buffers), out = jax.lax.scan(body, (x_prev, buffers), scanned)
        return x_prev, buffers, out

    widest = max(len(masked.cols) for masked in layers)
    cuts = segment_cuts(len(jax.tree.leaves(inputs)[0]), widest)
    return solve(cuts, [masked.bias for masked in layers], x_first)[-1]


def segment_cuts(num_slots: int, num_units: int) -> list[int]:
    """Return where to cut the slots: few into single ones, many into 2, 4 or 8 segments.

    About 12 slots, or 64 units of the widest layer, in a segment was the fastest on CPUs; more
    than 8 take long to compile.
    """
    wanted = max(num_slots / 12, min(num_units / 64, num_slots / 2))
    num_segments = num_slots if num_slots <= 4 else 2 ** min(max(round(np.log2(wanted)), 1), 3)
    return [num_slots * i // num_segments for i in range(num_segments + 1)]
