"""A masked network evaluated slot by slot, for the work of one dense pass.

The serial direction of an autoregressive model needs row `t` of the conditioner only when
`x[:t]` is known. Units are sorted by slot, so every masked matrix is block lower triangular, and
decoding is a forward substitution. Step `t` does four things: place `x[t - 1]`, compute the
hidden units of slot `t` layer by layer from known units, read row `t` of the output, and emit
`x[t]`. No unit is computed twice.

Slots are halved into segments, as in a recursive triangular solve. One large matrix product
computes the contribution of the first half to the second. Only the triangle within a segment is
left to the serial loop. The batch is the last axis, so a step is a product
(units, known) @ (known, B).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.lowering import multiply
from afflow.conditioners.masked import Masked
from afflow.core.conditioner import Emit

Network = Callable[[Callable, jax.Array], jax.Array]
"""`network(linear, x)` runs a network given `linear(layer, h)`, its masked linear maps."""


class Segment(NamedTuple):
    """The part of a masked linear map that the serial loop reads between two slots.

    Every step starts at the first row of its slot and computes as many rows as the fullest slot
    has. The surplus rows belong to later slots. Only masked weights read them, and a later step
    overwrites them. At the end of the segment, where dynamic slices are shifted to fit, a step
    starts earlier and computes rows of earlier slots again.
    """

    kernel: jax.Array  # (rows, columns)
    base: jax.Array  # (rows, B): the bias and the contribution of earlier slots
    before: jax.Array | None  # (columns, B)
    after: jax.Array | None  # (rows, B)

    @staticmethod
    def cut(masked: Masked, base: jax.Array, lo: int, hi: int) -> "Segment":
        """Cut the slots `lo..hi-1` out of `masked`; `base` holds the rows of these slots."""
        rows, cols = masked.spans(lo, hi)
        return Segment(
            masked.block(rows, cols),
            base,
            None if masked.before is None else masked.before[cols],
            None if masked.after is None else masked.after[rows],
        )


def round_to(h: jax.Array, dtype: Any) -> jax.Array:
    """Round `h` to the precision of `dtype` without a change of type.

    Products of few rows are faster in the wider type. XLA may remove a pair of conversions:
    decoding would then use other numbers than the density.
    """
    if jnp.dtype(dtype).itemsize > 2:
        return h
    info = jnp.finfo(dtype)
    return jax.lax.reduce_precision(h, info.nexp, info.nmant)


def add_rows(out: jax.Array, base: jax.Array, row: jax.Array) -> jax.Array:
    """Return `out` plus the rows of `base` from index `row` on."""
    return out + jax.lax.dynamic_slice_in_dim(base, row, len(out))


def add_singly(out: jax.Array, base: jax.Array, row: jax.Array) -> jax.Array:
    """Return the sum of `add_rows`, computed row by row.

    The code that reads `out` then takes single rows out of the sum. XLA's CPU compiler does not
    vectorise such code if the rows come from one slice.
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
    """Compute one slot: place `x_prev` `(..., B)`, return the output rows `(P, B)` and the buffers.

    Args:
        network: the layers between the masked linear maps.
        layers: the masked linear maps.
        ends: the first slot of the segment, and the slot after its last.
        segments: the parts of `layers` between the two `ends`.
        starts: for each layer, the first row and column of the slot within the segment.
        x_prev: the input of the slot.
        buffers: for each layer, its inputs so far, `(columns, B)`.
    """
    buffers = list(buffers)

    def linear(layer, h):
        (kernel, base, before, after), (row, col) = segments[layer], starts[layer]
        buffer = buffers[layer]
        if before is not None:
            h = h * jax.lax.dynamic_slice_in_dim(before, col, len(h))
        h = jnp.broadcast_to(round_to(h, kernel.dtype), (len(h), buffer.shape[1]))
        h = h.astype(buffer.dtype)
        buffers[layer] = jax.lax.dynamic_update_slice_in_dim(buffer, h, col, 0)
        size = layers[layer].fullest(*ends)
        rows = jax.lax.dynamic_slice_in_dim(kernel, row, size).astype(buffer.dtype)
        add = add_singly if layers[layer].emitted else add_rows
        out = add(multiply(rows, buffers[layer]), base, row)
        return out if after is None else out * jax.lax.dynamic_slice_in_dim(after, row, size)

    return network(linear, jnp.atleast_2d(x_prev)), buffers


def make_buffers(layers: Sequence[Masked], lo: int, hi: int, batch: int, dtype: Any) -> list:
    """Return zeros of type `dtype` for the inputs of every layer at the slots `lo..hi-1`."""
    spans = [masked.spans(lo, hi)[1] for masked in layers]
    return [jnp.zeros((cols.stop - cols.start, batch), dtype) for cols in spans]


def substitute(
    network: Network, layers: Sequence[Masked], emit: Emit, inputs: Any, x_first: jax.Array
) -> tuple[jax.Array, Any]:
    """Decode a batch: `x[t], aux[t] = emit(inputs[t], row t of the network at x[:t])`.

    Args:
        network: the layers between the masked linear maps.
        layers: the masked linear maps, with biases `(rows, 1)` or `(rows, B)`. A map that reads
            the event has the same number of columns in every slot: slot `t` holds `x[t - 1]`.
        emit: maps an input and the parameters `(P,)` of one slot to `x_t, aux_t`.
        inputs: a pytree of `(T, ..., B)`.
        x_first: `(..., B)`, the input of slot 0.

    Returns:
        `x` and `aux`, stacked to `(T, ..., B)`.
    """
    emit = jax.vmap(emit, in_axes=-1, out_axes=-1)
    arrays = [a for masked in layers for a in (masked.kernel, masked.bias)]
    dtype, batch = jnp.result_type(x_first, *arrays), x_first.shape[-1]

    def solve(cuts, bases, x_prev):
        """Return the last `x`, the inputs of every layer, and the results of several segments."""
        if len(cuts) == 2:
            return serial(cuts[0], cuts[1], bases, x_prev)
        middle = len(cuts) // 2
        lo, mid, hi = cuts[0], cuts[middle], cuts[-1]
        triples = list(zip(layers, bases, [m.num_rows(lo, mid) for m in layers], strict=True))
        x_prev, *early = solve(cuts[: middle + 1], [base[:n] for _, base, n in triples], x_prev)
        lower = [
            base[n:] + multiply(masked.reach(lo, mid, hi), known)
            for (masked, base, n), known in zip(triples, early[0], strict=True)
        ]
        x_prev, *late = solve(cuts[middle:], lower, x_prev)
        return x_prev, *jax.tree.map(lambda *parts: jnp.concatenate(parts), early, late)

    def serial(lo, hi, bases, x_prev):
        """Return the last `x`, the inputs of every layer, and the results of one segment."""
        pairs = zip(layers, bases, strict=True)
        segments = [Segment.cut(masked, base, lo, hi) for masked, base in pairs]

        def body(carry, scanned):
            starts, inputs_t = scanned
            params, buffers = advance(network, layers, (lo, hi), segments, starts, *carry)
            x_t, aux_t = emit(inputs_t, params)
            return (x_t, buffers), (x_t, aux_t)

        starts = np.stack([masked.starts(lo, hi) for masked in layers], 1)  # (hi - lo, layers, 2)
        scanned = starts, jax.tree.map(lambda a: a[lo:hi], inputs)
        buffers = make_buffers(layers, lo, hi, batch, dtype)
        (x_prev, buffers), out = jax.lax.scan(body, (x_prev, buffers), scanned)
        return x_prev, buffers, out

    widest = max(len(masked.cols) for masked in layers)
    cuts = choose_segment_cuts(len(jax.tree.leaves(inputs)[0]), widest)
    return solve(cuts, [masked.bias for masked in layers], x_first)[-1]


def choose_segment_cuts(num_slots: int, num_units: int) -> list[int]:
    """Return the slots between which to cut: the first slot of each segment, then `num_slots`.

    Up to 4 slots become single segments; more slots become 2, 4 or 8 segments. Segments of about
    12 slots, or of 64 units of the widest layer, were the fastest on CPUs. More than 8 segments
    take long to compile.
    """
    wanted = max(num_slots / 12, min(num_units / 64, num_slots / 2))
    num_segments = num_slots if num_slots <= 4 else 2 ** min(max(round(np.log2(wanted)), 1), 3)
    return [num_slots * i // num_segments for i in range(num_segments + 1)]
