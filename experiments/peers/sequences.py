"""Sequence models of netket and flax: densities, and samples by the decoding of each library.

An event is a row of symbols 0, 1, .... Every function is compiled.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Sizes of the networks and of the calls, except the length of an event."""

    batch: int = 64
    """Events in one call `N`."""
    width: int = 128
    """Channels of the convolutions; features of a row of the transformer."""
    num_layers: int = 4
    """Layers of each network."""
    kernel_size: int = 4
    """Rows that a convolution reads."""
    num_heads: int = 4
    """Heads of attention."""
    num_symbols: int = 65
    """Symbols of the transformer `K`. The convolutions are over spins, with two values."""
    seed: int = 0
    """Seed of the weights, the events and the samples."""


@dataclass(frozen=True, kw_only=True)
class Sizes(Shared):
    """Sizes of the networks and of the calls."""

    length: int
    """Sites or tokens of an event `T`."""


@dataclass(frozen=True)
class Model:
    """One model of one library, as functions."""

    weights: Any
    """The weights to copy."""
    prepare: Callable[[jax.Array], jax.Array]
    """Events in the form that the library takes, from symbols `(N, T)`."""
    log_prob: Callable[[jax.Array], jax.Array]
    """Log-probabilities `(N,)` of events in that form."""
    sample: Callable[[], jax.Array]
    """Draws `N` events."""
    decoded: Callable[[], tuple[jax.Array, jax.Array]]
    """Draws events in that form; returns also the log-probabilities that the decoding computed."""


def netket_convolutions(sizes: Sizes) -> Model:
    """Build netket's `FastARNNConv1D` over spins, sampled by its `ARDirectSampler`."""
    os.environ.setdefault("NETKET_ENABLE_X64", "0")  # else the import turns on float64
    import netket as nk

    hilbert = nk.hilbert.Spin(0.5, sizes.length)
    machine = nk.models.FastARNNConv1D(
        hilbert,
        layers=sizes.num_layers,
        features=sizes.width,
        kernel_size=sizes.kernel_size,
        param_dtype=jnp.float32,
    )
    sampler = nk.sampler.ARDirectSampler(hilbert)
    spins = jnp.asarray(hilbert.local_states, jnp.float32)
    variables = machine.init(jax.random.key(sizes.seed), jnp.ones((1, sizes.length)))
    variables = {"params": move(variables["params"], sizes.seed)}
    state = sampler.init_state(machine, variables, seed=sizes.seed)

    @jax.jit
    def log_prob(variables, x):
        return machine.machine_pow * machine.apply(variables, x).real

    def draw(**options):
        options |= {"state": state, "chain_length": sizes.batch}
        return sampler.sample(machine, variables, **options)[0]

    def decoded():
        x, log_probs = draw(return_log_probabilities=True)
        return x[0], log_probs[0]

    layers = [variables["params"][f"_layers_{i}"] for i in range(sizes.num_layers)]
    return Model(
        weights=(spins, layers),
        prepare=lambda x: spins[x],
        log_prob=lambda x: log_prob(variables, x),
        sample=draw,
        decoded=decoded,
    )


class Decoder(nnx.Module):
    """A transformer decoder of flax's layers, with normalisation in front of every block."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        self.num_symbols, self.width = sizes.num_symbols, sizes.width
        self.embed = nnx.Embed(sizes.num_symbols + 1, sizes.width, rngs=rngs)  # the last one starts
        self.places = nnx.Embed(sizes.length, sizes.width, rngs=rngs)
        self.blocks = nnx.List([Block(sizes, rngs) for _ in range(sizes.num_layers)])
        self.norm = nnx.LayerNorm(sizes.width, epsilon=1e-5, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(sizes.width, sizes.num_symbols, rngs=rngs)

    def __call__(self, x_prev: jax.Array, places: jax.Array, *, decode: bool) -> jax.Array:
        """Return logits `(N, n, K)` from the symbols before `n` places, `(N, n)`."""
        h = self.embed(x_prev) + self.places(places)
        for block in self.blocks:
            h = block(h, decode=decode)
        return self.head(self.norm(h))

    def init_cache(self, batch: int, length: int) -> None:
        """Empty the caches of all layers."""
        for block in self.blocks:
            block.attention.init_cache((batch, length, self.width))

    def full_pass(self, x: jax.Array) -> jax.Array:
        """Return logits `(N, T, K)` of symbols `(N, T)`."""
        x_prev = jnp.pad(x[:, :-1], ((0, 0), (1, 0)), constant_values=self.num_symbols)
        return self(x_prev, jnp.arange(x.shape[1]), decode=False)


class Block(nnx.Module):
    """One layer: attention, then two linear maps."""

    def __init__(self, sizes: Sizes, rngs: nnx.Rngs):
        width, options = sizes.width, {"epsilon": 1e-5, "use_bias": False, "rngs": rngs}
        self.norm_attention = nnx.LayerNorm(width, **options)
        self.attention = nnx.MultiHeadAttention(sizes.num_heads, width, use_bias=False, rngs=rngs)
        self.norm_linear = nnx.LayerNorm(width, **options)
        self.widen = nnx.Linear(width, 4 * width, rngs=rngs)
        self.narrow = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, h: jax.Array, *, decode: bool) -> jax.Array:
        """Return the rows `(N, n, width)` after the layer."""
        mask = None if decode else nnx.make_causal_mask(h[..., 0])
        h = h + self.attention(self.norm_attention(h), mask=mask, decode=decode)
        return h + self.narrow(nnx.gelu(self.widen(self.norm_linear(h))))


def flax_decoder(sizes: Sizes) -> Model:
    """Build a transformer of flax's layers, sampled with flax's caches in one compiled scan."""
    decoder = Decoder(sizes, nnx.Rngs(sizes.seed))
    graph, weights = nnx.split(decoder)
    weights = move(weights, sizes.seed)

    @jax.jit
    def log_prob(weights, x):
        return score(nnx.merge(graph, weights).full_pass(x), x)

    def draw(weights, key):
        decoder = nnx.merge(graph, weights)
        decoder.init_cache(sizes.batch, sizes.length)
        with_caches, caches, rest = nnx.split(decoder, nnx.Cache, ...)

        def step(carry, scanned):
            (x_prev, caches), (t, key_t) = carry, scanned
            decoder = nnx.merge(with_caches, caches, rest)
            logits = decoder(x_prev[:, None], t[None], decode=True)[:, 0]  # (N, K)
            x = jax.random.categorical(key_t, logits)
            return (x, nnx.state(decoder, nnx.Cache)), (x, logits)

        start = jnp.full(sizes.batch, sizes.num_symbols), caches
        scanned = jnp.arange(sizes.length), jax.random.split(key, sizes.length)
        x, logits = jax.lax.scan(step, start, scanned)[1]
        return x.T, jnp.moveaxis(logits, 0, 1)  # (N, T), (N, T, K)

    @jax.jit
    def sample(weights, key):
        return draw(weights, key)[0]

    @jax.jit
    def decoded(weights, key):
        x, logits = draw(weights, key)
        return x, score(logits, x)

    key = jax.random.key(sizes.seed)
    return Model(
        weights=nnx.merge(graph, weights),
        prepare=lambda x: x,
        log_prob=lambda x: log_prob(weights, x),
        sample=lambda: sample(weights, key),
        decoded=lambda: decoded(weights, key),
    )


def score(logits: jax.Array, x: jax.Array) -> jax.Array:
    """Return log-probabilities `(N,)` of symbols `(N, T)` under logits `(N, T, K)`."""
    terms = jnp.take_along_axis(jax.nn.log_softmax(logits), x[..., None], -1)
    return terms.sum((1, 2))


def move(weights: Any, seed: int) -> Any:
    """Add small random numbers to all weights, as biases of zero would not show a wrong copy."""
    return optax.tree.add_scale(
        weights, 0.05, optax.tree.random_like(jax.random.key(seed), weights)
    )
