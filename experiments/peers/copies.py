"""The networks of `sequences.py` in afflow, with copies of their weights."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import afflow
from afflow.nets.causal_convolution import convolve, make_queue
from peers.sequences import Decoder, Sizes


class Convolutions(afflow.Conditioner):
    """Causal convolutions with selu between them, the network of `FastARNNConv1D`.

    The first convolution reads the `K - 1` tokens before a row, each as the value of its spin. The
    others read `K` rows.

    Args:
        length: number of tokens `T`.
        values: the value of each symbol `(2,)`.
        layers: for each layer a kernel `(K, inputs, outputs)`, the newest row last, and a bias.
    """

    knows_length = False
    context_shape = None

    def __init__(self, length: int, values: jax.Array, layers: list[dict[str, jax.Array]]):
        self.event_shape = (length, len(values))
        self.num_params = len(layers[-1]["bias"])
        self.values = nnx.Param(values)
        self.kernels = nnx.List([nnx.Param(layer["kernel"][::-1]) for layer in layers])
        self.biases = nnx.List([nnx.Param(layer["bias"]) for layer in layers])

    def __call__(self, x, context=None):
        """Return the logits `(T, 2)` of every token."""
        return self.read(x, self.begin(context, x.dtype))[0]

    def init_cache(self, context=None, dtype=float):
        """Return the empty queue of every layer."""
        return [make_queue(1, *kernel.shape[:2], dtype) for kernel in self.kernels]

    def step(self, x_prev, t, cache):
        """Return the logits `(2,)` of one token, and the queues after it."""
        params, cache = self.prefill(x_prev[None], t, cache)
        return params[0], cache

    def prefill(self, x_prev, t, cache, key=None):
        """Return the logits `(n, 2)` of the next tokens, and the queues after them."""
        is_first = (t + jnp.arange(len(x_prev)) == 0)[:, None]
        h, new = jnp.where(is_first, 0, x_prev @ self.values[...][:, None]), []  # (n, 1)
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            h = jax.nn.selu(h) if i else h
            h, queue = convolve(cache[i], h, t, kernel[...])
            h = h + bias[...][None]
            new.append(queue)
        return 2 * h, new  # netket normalises the logarithm of a square root


def copy_convolutions(sizes: Sizes, weights: Any) -> afflow.AutoregressiveModel:
    """Return the model of afflow with the weights of netket."""
    network = Convolutions(sizes.length, *weights)
    return afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(2, height=1.0))


def copy_decoder(sizes: Sizes, decoder: Decoder) -> afflow.AutoregressiveModel:
    """Return the model of afflow with the weights of flax."""
    num_symbols, width = sizes.num_symbols, sizes.width
    network = afflow.conditioners.Transformer(
        sizes.length,
        num_symbols,
        width=width,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        features=num_symbols,
        positions=afflow.nets.Absolute(),
        rngs=nnx.Rngs(0),
    )
    copies = [
        (network.E, decoder.embed.embedding[:num_symbols]),
        (network.e, jnp.zeros(width)),
        (network.start, decoder.embed.embedding[num_symbols]),
        (network.places, decoder.places.embedding[...]),
        (network.norm, decoder.norm.scale[...]),
        (network.V, decoder.head.kernel[...]),
        (network.b, decoder.head.bias[...]),
    ]
    for layer, block in zip(network.layers, decoder.blocks, strict=True):
        attention = block.attention
        maps = attention.query, attention.key, attention.value
        qkv = [linear.kernel[...].reshape(width, width) for linear in maps]
        copies += [
            (layer.norm_attention, block.norm_attention.scale[...]),
            (layer.qkv, jnp.concatenate(qkv, axis=1)),
            (layer.out, attention.out.kernel[...].reshape(width, width)),
            (layer.norm_linear, block.norm_linear.scale[...]),
            (layer.widen, block.widen.kernel[...]),
            (layer.b_widen, block.widen.bias[...]),
            (layer.narrow, block.narrow.kernel[...]),
            (layer.b_narrow, block.narrow.bias[...]),
        ]
    for param, values in copies:
        assert param.shape == values.shape
        param[...] = values
    return afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(num_symbols))
