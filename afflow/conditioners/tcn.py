"""The temporal convolutional network: residual blocks of dilated causal convolutions."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import check_size, check_widths
from afflow.core.conditioner import Conditioner
from afflow.nets.causal_convolution import convolve, make_queue


class TCN(Conditioner):
    r"""Residual blocks of two dilated causal convolutions, with weight normalisation and dropout.

    $$z_{l+1} = \mathrm{relu}\big(R_l z_l + \mathrm{relu}(W'_l * \mathrm{relu}(W_l * z_l))\big),
    \qquad p_t = V z_L(t) + b.$$

    $z_0(t)$ is the token $x_{t-1}$; the token before the first one is learned. Block $l$ has
    dilation $2^l$. $R_l$ is the identity where the channels do not change. Each kernel is
    $g\, v / \|v\|$ with a trained length $g$ for each output. Row `t` sees the `receptive_field`
    tokens before `t`. A density takes one pass; a step of decoding computes one column of every
    layer, from queues. The output weights start at zero.

    Bai, Kolter and Koltun 2018, arXiv:1803.01271.

    Args:
        length: number of tokens `T`.
        num_params: parameters per token `P`.
        channels: the channels of each block.
        kernel_size: the number of tokens that a convolution reads.
        features: values in a token, 1 for a scalar. With more, an event is `(T, features)`.
        context_dim: length of the context vector, which every row of $z_0$ sees; 0 for none.
        dropout: the probability to drop a channel of a convolution's output, for all tokens, during
            training only.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range, or a `dropout` outside of [0, 1).

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> network = afflow.conditioners.TCN(9, 2, (8, 8), kernel_size=3, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(9)).shape, network.receptive_field
        ((9, 2), 13)
    """

    knows_length = False

    def __init__(
        self,
        length: int,
        num_params: int,
        channels: tuple[int, ...] = (128, 128, 128, 128),
        *,
        kernel_size: int = 5,
        features: int = 1,
        context_dim: int = 0,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        sizes = length, num_params, channels
        self._set_sizes(*sizes, features=features, context_dim=context_dim, dropout=dropout)
        check_widths(channels, least=1)
        check_size("kernel_size", kernel_size, least=2)
        self.kernel_size = kernel_size
        self.x_first = nnx.Param(jnp.zeros(features))
        widths = (features + context_dim, *channels)
        options = {"kernel_size": kernel_size, "rngs": rngs}
        self.blocks = nnx.List(
            [_Block(widths[i], width, 2**i, **options) for i, width in enumerate(channels)]
        )
        self.V = nnx.Param(jnp.zeros((channels[-1], num_params)))
        self.b = nnx.Param(jnp.zeros(num_params))

    @property
    def receptive_field(self) -> int:
        """The number of earlier tokens that a row sees."""
        return 1 + 2 * (self.kernel_size - 1) * (2 ** len(self.blocks) - 1)

    def __call__(self, x, context=None):
        return self.read(x, self.begin(context, x.dtype))[0]

    def init_cache(self, context=None, dtype=float):
        dtype = jnp.result_type(self.V[...], dtype)
        return [
            [make_queue(block.dilation, self.kernel_size, v.shape[1], dtype) for v in block.kernels]
            for block in self.blocks
        ], context

    def step(self, x_prev, t, cache):
        params, cache = self.prefill(x_prev[None], t, cache)
        return params[0], cache

    def prefill(self, x_prev, t, cache, key=None):
        queues, context = cache
        is_first = (t + jnp.arange(len(x_prev)) == 0)[:, None]
        x_prev = x_prev.reshape(len(x_prev), self.features)
        z = jnp.where(is_first, self.x_first[...][None], x_prev)
        if context is not None:
            z = jnp.concatenate([z, jnp.broadcast_to(context, (len(z), len(context)))], axis=1)
        new = []
        for i, (block, pair) in enumerate(zip(self.blocks, queues, strict=True)):
            h, after = z, []
            for j, queue in enumerate(pair):
                h, queue = convolve(queue, h, t, block.kernel(j), block.dilation)
                h = jax.nn.relu(h + block.biases[j][...][None])
                h = h * self._drop(key, 2 * i + j, jnp.ones((1, h.shape[1]), h.dtype))
                after.append(queue)
            z = jax.nn.relu(block.skip(z) + h)
            new.append(after)
        return multiply_rows(z, self.V[...]) + self.b[...][None], (new, context)


class _Block(nnx.Module):
    """The weights of a residual block."""

    def __init__(self, num_inputs, channels, dilation, *, kernel_size, rngs):
        self.dilation = dilation

        def draw(*shape):
            scale = 1 / math.sqrt(shape[-2])
            return nnx.Param(scale * jax.random.normal(draw_key(rngs), shape))

        sizes = (num_inputs, channels)
        self.kernels = nnx.List([draw(kernel_size, size, channels) for size in sizes])
        lengths = [jnp.sqrt(2 / kernel_size) * _norms(v[...]) for v in self.kernels]
        self.lengths = nnx.List([nnx.Param(length) for length in lengths])
        self.biases = nnx.List([nnx.Param(jnp.zeros(channels)) for _ in sizes])
        self.R = draw(num_inputs, channels) if num_inputs != channels else None

    def kernel(self, j):
        """Return the kernel of convolution `j`, from its direction and its lengths."""
        v = self.kernels[j][...]
        return v * (self.lengths[j][...] / _norms(v))[None, None]

    def skip(self, z):
        """Return the input with the channels of the output."""
        return z if self.R is None else multiply_rows(z, self.R[...])


def _norms(v: jax.Array) -> jax.Array:
    """Return the norm of the weights of each output."""
    return jnp.sqrt(jnp.square(v).sum((0, 1)))
