"""A masked network decoded slot by slot in one GPU kernel.

The kernel computes the results of `substitute`. In `substitute`, every step launches several
small kernels. Here a program of the GPU decodes a tile of events from the first slot to the last
without leaving the chip. Slots are grouped into *blocks* of a few dozen hidden units. At the
start of a block, products with all earlier units give the known part of every layer. A step then
multiplies within the block only. Its products include rows of later slots. The weights that read
these rows are masked, and the rows are computed again when their step comes.

The batch is the last axis, as in `substitute`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from afflow._tools.lowering import choose_products
from afflow.conditioners.blocks import (
    Padded,
    Sizes,
    Tiling,
    choose_block_cuts,
    choose_block_sizes,
    pad_map,
)
from afflow.conditioners.lanes import Lanes, as_lanes, on_tile
from afflow.conditioners.masked import Masked
from afflow.conditioners.substitution import Network
from afflow.core.conditioner import Emit


class Scratch(NamedTuple):
    """The memory that a program uses for one masked linear map."""

    inputs: Any  # (columns, B), the inputs of earlier blocks
    known: Any  # (rows, B), the contribution of earlier blocks to the rows that `emit` reads


def substitute_in_kernel(
    network: Network,
    layers: Sequence[Masked],
    emit: Emit,
    inputs: Any,
    x_first: jax.Array,
    *,
    tiling: Tiling | None = None,
    interpret: bool = False,
) -> tuple[jax.Array, Any]:
    """Decode a batch in one kernel, with the arguments and results of `substitute`.

    `tiling` sets the sizes of programs and blocks. `interpret` runs the kernel without a GPU.
    """
    num_slots, batch = jax.tree.leaves(inputs)[0].shape[0], x_first.shape[-1]
    tiling = tiling or Tiling.of(batch)
    cuts, tile = choose_block_cuts(layers, num_slots, tiling.units), tiling.events
    width = -(-batch // tile) * tile
    precision = None if interpret else choose_products()

    def flat(a):  # (..., B) to (rows, width)
        return jnp.pad(a.reshape(-1, batch), ((0, 0), (0, width - batch)))

    def empty(num_rows, dtype):
        return jax.ShapeDtypeStruct((num_rows, width), dtype)

    sizes = [choose_block_sizes(layer, cuts) for layer in layers]
    maps = [pad_map(layer, cuts, flat) for layer in layers]
    dtype, num_blocks = jnp.result_type(x_first, *(m.bias for m in layers)), len(cuts) - 1
    item = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:-1], a.dtype), inputs)
    params = jax.ShapeDtypeStruct((max(size.params for size in sizes),), dtype)
    out = jax.eval_shape(emit, item, params)
    results = jax.tree.map(lambda a: empty(num_slots * math.prod(a.shape), a.dtype), out)
    scratch = [
        Scratch(
            empty(num_blocks * s.cols, dtype),
            empty(num_blocks * s.rows * (s.params > 0) or 1, dtype),
        )
        for s in sizes
    ]

    def program(cuts, inputs, first, maps, results, scratch):
        here = pl.ds(pl.program_id(0) * tile, tile)
        parts = [
            TiledMap(*refs, here, precision) for refs in zip(sizes, maps, scratch, strict=True)
        ]

        def load(t):
            return jax.tree.map(lambda ref, a: _load(ref, t, a.shape, here), inputs, item)

        def emit_slot(t, given, params):
            found = on_tile(emit, given, params)
            jax.tree.map(lambda ref, lanes: _store(ref, t, lanes, here), results, found)
            return found[0]

        start = [first[i, here] for i in range(first.shape[0])]
        wait = _pass if interpret else triton.debug_barrier
        decode_tile(network, parts, load, emit_slot, cuts, start, wait)

    decode = pl.pallas_call(
        program,
        out_shape=(results, scratch),
        grid=(width // tile,),
        compiler_params=triton.CompilerParams(num_warps=tiling.warps, num_stages=1),
        interpret=interpret,
        name="decode_masked_network",
    )
    found, _ = decode(jnp.asarray(cuts, jnp.int32), jax.tree.map(flat, inputs), flat(x_first), maps)
    shapes = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct((num_slots, *a.shape, batch), a.dtype), out
    )
    return jax.tree.map(lambda a, like: a[:, :batch].reshape(like.shape), found, shapes)


class Block(NamedTuple):
    """The part of a masked linear map that the steps of one block read."""

    row: jax.Array  # the first row of the block
    col: jax.Array  # the first column of the block
    kernel: jax.Array | None  # (rows, columns)
    known: jax.Array  # (rows, tile), the contribution of earlier blocks
    before: jax.Array | None  # (columns, tile)
    after: jax.Array | None  # (rows, tile)


class Slot(NamedTuple):
    """The part of a masked linear map that one step reads, loaded ahead of its use."""

    place: jax.Array  # the first column of the slot's coordinate within the block
    columns: list[jax.Array]  # columns of the kernel, one per feature of the coordinate
    rows: list[jax.Array]  # rows of the kernel, one per parameter
    known: list[jax.Array]  # the contribution of earlier blocks to these rows


class TiledMap(NamedTuple):
    """A masked linear map inside a program: references to its arrays, and the tile's events."""

    sizes: Sizes
    arrays: Padded
    scratch: Scratch
    here: Any
    precision: Any

    @property
    def is_accumulated(self) -> bool:
        """Return whether the rows are hidden units that read the event.

        Each new coordinate is then added to all the rows.
        """
        return self.sizes.coordinates > 0 and not self.sizes.params

    def bias(self, row: jax.Array) -> jax.Array:
        """Return the bias of the `height` rows from `row` on, `(height, tile)`."""
        bias, rows = self.arrays.bias, pl.ds(row, self.sizes.height)
        bias = bias[rows, pl.ds(0, 1) if bias.shape[1] == 1 else self.here]
        return jnp.broadcast_to(bias, (self.sizes.height, self.here.size)).astype(
            self.scratch.inputs.dtype
        )

    def product(self, row: jax.Array, number: jax.Array) -> jax.Array:
        """Multiply the `height` rows from `row` on by the inputs of block `number`."""
        cols = pl.ds(number * self.sizes.cols, self.sizes.cols)
        kernel = self.arrays.kernel[pl.ds(row, self.sizes.height), cols]
        return self._dot(kernel, self.scratch.inputs[cols, self.here])

    def enter(self, number: jax.Array, known: jax.Array) -> Block:
        """Load the weights of a block; `known` belongs to its first `height` rows."""
        sizes, arrays, row, col = self.sizes, self.arrays, *self._corner(number)
        rows, cols, kernel = pl.ds(row, sizes.rows), pl.ds(col, sizes.cols), None
        if sizes.params:
            self.scratch.known[pl.ds(row, self.sizes.height), self.here] = known
            for chunk in range(self.sizes.height, sizes.rows, self.sizes.height):
                more = jax.lax.fori_loop(
                    jnp.int32(0),
                    number,
                    lambda k, total, row=row + chunk: total + self.product(row, k),
                    self.bias(row + chunk),
                )
                self.scratch.known[pl.ds(row + chunk, self.sizes.height), self.here] = more
        elif self.is_accumulated:
            nothing = jnp.zeros((sizes.cols, self.here.size), self.scratch.inputs.dtype)
            self.scratch.inputs[cols, self.here] = nothing
        else:
            kernel = arrays.kernel[rows, cols]
        before = None if arrays.before is None else arrays.before[cols, self.here]
        after = None if arrays.after is None else arrays.after[rows, self.here]
        return Block(row, col, kernel, known, before, after)

    def read(self, block: Block, offset: jax.Array) -> Slot:
        """Load the weights that a block needs for its slot number `offset`."""
        kernel, sizes = self.arrays.kernel, self.sizes
        cols, place = pl.ds(block.col, sizes.cols), offset * sizes.coordinates
        columns, row = [], block.row + offset * sizes.params
        if self.is_accumulated:
            rows = pl.ds(block.row, sizes.rows)
            columns = [kernel[rows, block.col + place + i] for i in range(sizes.coordinates)]
        weights = [kernel[row + i, cols] for i in range(sizes.params)]
        known = [self.scratch.known[row + i, self.here] for i in range(sizes.params)]
        return Slot(place, columns, weights, known)

    def start(self, block: Block) -> jax.Array:
        """Return the tile that the steps of a block carry.

        If hidden units read the event, the tile holds these units. Otherwise it holds the
        inputs of the map so far.
        """
        if self.is_accumulated:
            return block.known
        return jnp.zeros((self.sizes.cols, self.here.size), self.scratch.inputs.dtype)

    def linear(self, block: Block, slot: Slot, h: Any, tile: jax.Array) -> tuple[Any, jax.Array]:
        """Apply the map; return its rows and the next tile to carry.

        `h` is a tile of hidden units, or the lanes of a coordinate. The rows that `emit` reads
        are returned as lanes.
        """
        if self.is_accumulated:
            tile = self._accumulate(block, slot, h, tile)
            return (tile if block.after is None else tile * block.after), tile
        if self.sizes.coordinates:
            tile = _insert(tile, h, slot.place)
        else:
            tile = h if block.before is None else h * block.before
        if self.sizes.params:
            return self._emitted(slot, tile), tile
        out = block.known + self._dot(block.kernel, tile)
        return (out if block.after is None else out * block.after), tile

    def leave(self, number: jax.Array, tile: jax.Array) -> None:
        """Keep the inputs of a block for later blocks."""
        if not self.is_accumulated:
            _, col = self._corner(number)
            self.scratch.inputs[pl.ds(col, self.sizes.cols), self.here] = tile

    def _corner(self, number):
        return number * self.sizes.rows, number * self.sizes.cols

    def _accumulate(self, block, slot, lanes, tile):
        for i, (lane, weights) in enumerate(zip(lanes.flat, slot.columns, strict=True)):
            self.scratch.inputs[block.col + slot.place + i, self.here] = lane
            tile = tile + weights.astype(tile.dtype)[:, None] * self._rounded(lane)[None]
        return tile

    def _emitted(self, slot, h):
        """Return the rows of a slot as lanes. The rows are few: each takes one sum."""
        h, lanes = self._rounded(h), []
        for weights, known in zip(slot.rows, slot.known, strict=True):
            lanes.append(known + jnp.sum(weights.astype(h.dtype)[:, None] * h, 0))
        return as_lanes(lanes, (len(lanes),))

    def _rounded(self, h):
        return h.astype(self.arrays.kernel.dtype).astype(h.dtype)

    def _dot(self, kernel, h):
        precision = self.precision if kernel.dtype == jnp.float32 else None
        return triton.dot(kernel, h.astype(kernel.dtype), precision=precision).astype(h.dtype)


def decode_tile(
    network: Network,
    parts: list[TiledMap],
    load: Callable,
    emit: Callable,
    cuts: Any,
    first: list,
    wait: Callable,
) -> None:
    """Decode one tile of events, block after block.

    Loads come first in a step, ahead of the matrix products that use the loaded values.

    Args:
        network: the layers between the masked linear maps.
        parts: the masked linear maps.
        load: `load(t)` returns the input of slot `t`.
        emit: `emit(t, input, params)` stores the coordinate of slot `t` and returns its lanes.
        cuts: the first slot of each block, then the number of slots.
        first: the input of slot 0, as a list of lanes.
        wait: makes the stores of any thread visible to all threads of the program.
    """

    def run_block(number, x_prev):
        rows = [number * part.sizes.rows for part in parts]

        def add(k, totals):
            triples = zip(parts, rows, totals, strict=True)
            return [total + part.product(row, k) for part, row, total in triples]

        biases = [part.bias(row) for part, row in zip(parts, rows, strict=True)]
        known = jax.lax.fori_loop(jnp.int32(0), number, add, biases)
        blocks = [part.enter(number, tile) for part, tile in zip(parts, known, strict=True)]
        wait()

        def step(t, carry):
            x_prev, tiles = carry[0], list(carry[1])
            offset, given = t - cuts[number], load(t)
            slots = [part.read(block, offset) for part, block in zip(parts, blocks, strict=True)]

            def linear(i, h):
                out, tiles[i] = parts[i].linear(blocks[i], slots[i], h, tiles[i])
                return out

            lanes: Any = as_lanes(x_prev, (len(x_prev),))
            params = network(linear, lanes)
            return list(emit(t, given, params).flat), tiles

        tiles = [part.start(block) for part, block in zip(parts, blocks, strict=True)]
        x_prev, tiles = jax.lax.fori_loop(cuts[number], cuts[number + 1], step, (x_prev, tiles))
        for part, tile in zip(parts, tiles, strict=True):
            part.leave(number, tile)
        wait()
        return x_prev

    jax.lax.fori_loop(jnp.int32(0), jnp.int32(cuts.shape[0] - 1), run_block, first)


def _insert(tile: jax.Array, lanes: Lanes, row: jax.Array) -> jax.Array:
    """Return `tile` with its rows from `row` on replaced by `lanes`."""
    place = jax.lax.broadcasted_iota(jnp.int32, tile.shape, 0) - row
    for i, lane in enumerate(lanes.flat):
        tile = jnp.where(place == i, lane[None].astype(tile.dtype), tile)
    return tile


def _load(ref: Any, t: jax.Array, shape: tuple[int, ...], here: Any) -> Lanes:
    """Return the entries of slot `t`, an array of `shape`, as lanes."""
    size = math.prod(shape)
    return as_lanes([ref[t * size + i, here] for i in range(size)], shape)


def _store(ref: Any, t: jax.Array, lanes: Lanes, here: Any) -> None:
    for i, lane in enumerate(lanes.flat):
        ref[t * lanes.size + i, here] = lane


def _pass() -> None:
    """Wait for nothing: an interpreted program has one thread."""
