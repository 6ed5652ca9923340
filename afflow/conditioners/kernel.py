"""A masked network decoded slot by slot in one GPU kernel.

It computes what `sweep` computes. There, every step is several launches of small kernels;
here a program of the GPU decodes a tile of events from the first slot to the last without
leaving the chip. Slots are grouped into *blocks* of a few dozen hidden units. At the start
of a block, products with all earlier units give the part of every layer that is known. A
step then multiplies within the block only. Rows of later slots take part in it with
weights that are masked, and are computed again when their step comes.

Pallas with Triton wants arrays whose sizes are powers of two, so each block is padded
with zeros. The batch is the last axis, as in `sweep`.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from afflow._tools.lowering import on_gpu, shared_memory, tensor_core_products
from afflow.conditioners.lanes import Lanes, as_lanes, is_elementwise, is_tileable, on_tile
from afflow.conditioners.masked import Masked
from afflow.conditioners.substitution import Network, sweep
from afflow.core.conditioner import Emit

_LEAST = 16  # the least side of a product that Triton accepts
_MOST_EVENTS = 65_536  # beyond, the segments of `sweep` are expected to be faster
_FULLEST = 128  # units in a slot
_CHUNK = 64  # rows for `emit` that are multiplied at once
_SHARE = 0.75  # of the shared memory of a program that operands may take


class Tiling(NamedTuple):
    """How the kernel is cut into programs and blocks."""

    events: int  # a program decodes
    units: int = 64  # in a block
    warps: int = 4

    @staticmethod
    def of(batch: int) -> "Tiling":
        """Return the tiling for a batch.

        On an H200, 5 layers of 2x512 at D=43: 16 events were the fastest for a batch of 1,000; 32
        took 3.2 ms for 16,384, where 16 took 4.8. Blocks of 32 or 128 units took twice as long.
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


class Scratch(NamedTuple):
    """The memory that a program uses for one masked linear map."""

    inputs: Any  # (columns, B), the inputs of earlier blocks
    known: Any  # (rows, B), what earlier blocks contribute to the rows that `emit` reads


def decode(
    network: Network,
    layers: Sequence[Masked],
    emit: Emit,
    inputs: Any,
    x_first: jax.Array,
    *,
    kernel: bool | tuple[int, int, int] | None = None,
    activation: Callable | None = None,
) -> tuple[jax.Array, Any]:
    """Decode a batch by `sweep` or by `kernel_sweep`, which take the same arguments.

    Args:
        network: the layers between the masked linear maps.
        layers: the masked linear maps.
        emit: maps an input and the parameters of one slot to a coordinate.
        inputs: a pytree of `(T, ..., B)`.
        x_first: what slot 0 holds.
        kernel: whether to use the kernel, interpreted where there is no NVIDIA GPU, or its
            `Tiling`. By default it is used on these GPUs, for what it can compute and up to
            `_MOST_EVENTS` events.
        activation: the nonlinearity inside `network`, if it has one.

    Raises:
        ValueError: if the kernel is wanted and cannot compute this.
    """
    args, batch = (network, layers, emit, inputs, x_first), x_first.shape[-1]
    if not batch or kernel is False or (kernel is None and not on_gpu()):
        return sweep(*args)
    obstacle = find_obstacle(layers, emit, inputs, activation)
    if kernel and obstacle:
        raise ValueError(f"Expected a network that the kernel can decode, got {obstacle}.")
    if obstacle or (kernel is None and (batch > _MOST_EVENTS or not _fits(layers, inputs))):
        return sweep(*args)
    tiled = partial(kernel_sweep, tiling=Tiling(*kernel) if isinstance(kernel, tuple) else None)
    default = partial(tiled, interpret=True) if kernel else sweep
    return jax.lax.platform_dependent(cuda=lambda: tiled(*args), default=lambda: default(*args))


def find_obstacle(
    layers: Sequence[Masked], emit: Emit, inputs: Any, activation: Callable | None
) -> str | None:
    """Return why the kernel cannot decode a network, or `None` if it can."""
    num_slots = len(jax.tree.leaves(inputs)[0])
    types = {a.dtype for m in layers for a in (m.bias, *jax.tree.leaves(inputs))}
    if types != {jnp.dtype(jnp.float32)}:
        return f"arrays of {', '.join(sorted(map(str, types)))} and not float32"
    fullest = max(np.bincount(m.cols, minlength=num_slots).max() for m in layers)
    if fullest > _FULLEST:
        return f"{fullest} units in a slot, more than {_FULLEST}"
    if activation is not None and not is_elementwise(activation):
        return f"the activation {activation}, which is not known to be elementwise"
    params = jnp.zeros(max(len(m.rows) // num_slots for m in layers if m.emitted), jnp.float32)
    if not is_tileable(emit, jax.tree.map(lambda a: a[0, ..., 0], inputs), params):
        return "a univariate with operations that have no rule in `lanes`"
    return None


def _fits(layers: Sequence[Masked], inputs: Any) -> bool:
    """Return whether the operands of a block fit into the shared memory of this GPU.

    They are a large and a small part of each block of weights. Of 227 KiB on an H200, a network
    with 176 KiB by this count compiled and one with 320 did not.
    """
    cuts = block_cuts(layers, len(jax.tree.leaves(inputs)[0]), Tiling.of(1).units)
    sizes = [_sizes(layer, cuts) for layer in layers]
    return sum(8 * size.height * size.cols for size in sizes) <= _SHARE * shared_memory()


def kernel_sweep(
    network: Network,
    layers: Sequence[Masked],
    emit: Emit,
    inputs: Any,
    x_first: jax.Array,
    *,
    tiling: Tiling | None = None,
    interpret: bool = False,
) -> tuple[jax.Array, Any]:
    """Decode a batch as `sweep` does, with its arguments and results, in one kernel."""
    num_slots, batch = jax.tree.leaves(inputs)[0].shape[0], x_first.shape[-1]
    tiling = tiling or Tiling.of(batch)
    cuts, tile = block_cuts(layers, num_slots, tiling.units), tiling.events
    width = -(-batch // tile) * tile
    precision = None if interpret else tensor_core_products()

    def flat(a):  # (..., B) to (rows, width)
        return jnp.pad(a.reshape(-1, batch), ((0, 0), (0, width - batch)))

    def empty(num_rows, dtype):
        return jax.ShapeDtypeStruct((num_rows, width), dtype)

    sizes = [_sizes(layer, cuts) for layer in layers]
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


def _sizes(layer: Masked, cuts: np.ndarray) -> Sizes:
    """Return how large the blocks of a map are."""
    rows, cols = _places(layer, cuts)
    coordinates = len(layer.cols) // int(cuts[-1]) if layer.placed else 0
    params = len(layer.rows) // int(cuts[-1]) if layer.emitted else 0
    return Sizes(rows.size, cols.size, coordinates, params)


def _places(layer: Masked, cuts: np.ndarray) -> tuple[Places, Places]:
    """Return where the rows and the columns of a map lie."""
    return Places.of(layer.rows, cuts, whole=not layer.emitted), Places.of(layer.cols, cuts)


class Block(NamedTuple):
    """The part of a masked linear map that the steps of one block read."""

    row: jax.Array  # its first row
    col: jax.Array  # its first column
    kernel: jax.Array | None  # (rows, columns)
    known: jax.Array  # (rows, tile), what earlier blocks contribute
    before: jax.Array | None  # (columns, tile)
    after: jax.Array | None  # (rows, tile)


class Slot(NamedTuple):
    """The part of a masked linear map that one step reads, loaded ahead of its use."""

    place: jax.Array  # the first column of its coordinates within the block
    columns: list[jax.Array]  # of the kernel, one for each coordinate
    rows: list[jax.Array]  # of the kernel, one for each parameter
    known: list[jax.Array]  # of these rows


class TiledMap(NamedTuple):
    """A masked linear map inside a program: references to its arrays, and the tile's events."""

    sizes: Sizes
    arrays: Padded
    scratch: Scratch
    here: Any
    precision: Any

    @property
    def is_accumulated(self) -> bool:
        """Whether hidden units read the event: each new coordinate then adds to all of them."""
        return self.sizes.coordinates > 0 and not self.sizes.params

    def bias(self, row: jax.Array) -> jax.Array:
        """Return the bias of the `height` rows from `row` on, `(rows, tile)`."""
        bias, rows = self.arrays.bias, pl.ds(row, self.sizes.height)
        bias = bias[rows, pl.ds(0, 1) if bias.shape[1] == 1 else self.here]
        return jnp.broadcast_to(bias, (self.sizes.height, self.here.size)).astype(
            self.scratch.inputs.dtype
        )

    def product(self, row: jax.Array, number: jax.Array) -> jax.Array:
        """Multiply the `height` rows from `row` on with the inputs of a block."""
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
        """Load the weights of the step of slot `offset` of a block."""
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

        It holds the inputs so far, or of hidden units that read the event, these units.
        """
        if self.is_accumulated:
            return block.known
        return jnp.zeros((self.sizes.cols, self.here.size), self.scratch.inputs.dtype)

    def linear(self, block: Block, slot: Slot, h: Any, tile: jax.Array) -> tuple[Any, jax.Array]:
        """Apply the map; return its rows and the tile to carry on.

        `h` is a tile of hidden units, or the lanes of a coordinate. Rows that `emit` reads are
        returned as lanes.
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
        """Return the rows of a slot as lanes: one sum for each, since they are few."""
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

    Loads stand at the start of a step, so that the products do not wait for them.

    Args:
        network: the layers between the masked linear maps.
        parts: these maps.
        load: `load(t)` returns the input of slot `t`.
        emit: `emit(t, input, params)` stores the coordinate of slot `t` and returns its lanes.
        cuts: the first slot of each block, and the number of slots.
        first: what slot 0 holds.
        wait: makes what any thread has stored visible to all threads of the program.
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
    """Return a tile with lanes in its rows from `row` on."""
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
    """Wait for nothing: where programs are interpreted, they have one thread."""
