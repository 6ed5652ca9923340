"""WaveNet: dilated causal convolutions with gates."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow._tools.modules import copy_module
from afflow._tools.products import multiply_rows
from afflow._tools.shapes import check_size, check_widths
from afflow.core.conditioner import Conditioner
from afflow.nets.causal_convolution import convolve, make_queue


class WaveNet(Conditioner):
    r"""A stack of dilated causal convolutions with gated units, residual and skip connections.

    $$g_l(t) = \tanh(f_l(t)) \odot \sigma(s_l(t)), \qquad
    (f_l, s_l)(t) = \sum_k W_{lk}\, z_l(t - k d_l) + U_l h_t + b_l,$$

    $$z_{l+1} = z_l + R_l\, g_l, \qquad
    p_t = B\,\mathrm{relu}(A\,\mathrm{relu}(\textstyle\sum_l S_l\, g_l(t))),$$

    where $z_0(t)$ is linear in the token $x_{t-1}$; the token before the first one is learned. Row
    `t` sees the `receptive_field` tokens before `t`. A density takes one pass. A step of decoding
    computes one column of every layer: a layer keeps a queue of its last inputs, as long as its
    dilation. The output weights start at zero.

    van den Oord et al. 2016, arXiv:1609.03499; the queues are of Paine et al. 2016,
    arXiv:1611.09482.

    Args:
        length: number of tokens `T`.
        num_params: parameters per token `P`.
        dilations: the dilation $d_l$ of each layer.
        channels: channels of $z_l$ and of the gates.
        skip_channels: channels of the sum of the skip connections; twice `channels` by default.
        kernel_size: the number of tokens that a convolution reads.
        features: values in a token, 1 for a scalar. With more, an event is `(T, features)`.
        context_dim: length of the context vector; 0 for none.
        aligned: whether the context is a series `(T, context_dim)` with one row for each token,
            such as the frames of a spectrogram at the rate of the samples.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> network = afflow.conditioners.WaveNet(9, 2, (1, 2, 4), channels=8, rngs=nnx.Rngs(0))
        >>> network(jnp.ones(9)).shape, network.receptive_field
        ((9, 2), 8)
    """

    knows_length = False

    def __init__(
        self,
        length: int,
        num_params: int,
        dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        *,
        channels: int = 32,
        skip_channels: int | None = None,
        kernel_size: int = 2,
        features: int = 1,
        context_dim: int = 0,
        aligned: bool = False,
        rngs: nnx.Rngs,
    ):
        skip = 2 * channels if skip_channels is None else skip_channels
        sizes = length, num_params, dilations
        self._set_sizes(*sizes, features=features, context_dim=context_dim)
        check_widths(dilations, least=1)
        check_size("kernel_size", kernel_size, least=2)
        check_widths((channels, skip))
        self.aligned, self.kernel_size = aligned, kernel_size
        if aligned and context_dim:
            self.context_shape = (length, context_dim)
        self.dilations = tuple(int(d) for d in dilations)
        layers = len(self.dilations)

        def draw(num_inputs, *shape):
            scale = 1 / math.sqrt(max(num_inputs, 1))
            return nnx.Param(scale * jax.random.normal(draw_key(rngs), shape))

        self.x_first = nnx.Param(jnp.zeros(features))
        self.W_in = draw(features, features, channels)
        self.W = draw(kernel_size * channels, layers, kernel_size, channels, 2 * channels)
        self.U = draw(context_dim, layers, context_dim, 2 * channels)
        self.b = nnx.Param(jnp.zeros((layers, 2 * channels)))
        self.R = draw(channels, layers, channels, channels)
        self.S = draw(layers * channels, layers, channels, skip)
        self.b_skip = nnx.Param(jnp.zeros(skip))
        self.A = draw(skip, skip, skip)
        self.a = nnx.Param(jnp.zeros(skip))
        self.B = nnx.Param(jnp.zeros((skip, num_params)))
        self.b_out = nnx.Param(jnp.zeros(num_params))

    @property
    def receptive_field(self) -> int:
        """The number of earlier tokens that a row sees."""
        return 1 + (self.kernel_size - 1) * sum(self.dilations)

    def with_length(self, length):
        other = super().with_length(length)
        if not self.aligned or self.context_shape is None:
            return other
        return copy_module(other, context_shape=(length, *self.context_shape[1:]))

    def __call__(self, x, context=None):
        return self.read(x, self.begin(context, x.dtype))[0]

    def init_cache(self, context=None, dtype=float):
        channels, dtype = self.R.shape[-1], jnp.result_type(self.W_in[...], dtype)
        return [make_queue(d, self.kernel_size, channels, dtype) for d in self.dilations], context

    def step(self, x_prev, t, cache):
        params, cache = self.prefill(x_prev[None], t, cache)
        return params[0], cache

    def prefill(self, x_prev, t, cache, key=None):
        queues, given = cache
        x_prev = x_prev.reshape(len(x_prev), self.features)
        is_first = (t + jnp.arange(len(x_prev)) == 0)[:, None]
        x_prev = jnp.where(is_first, self.x_first[...][None], x_prev)
        z = multiply_rows(x_prev, self.W_in[...])  # (n, R)
        context, new, skips = given, [], self.b_skip[...][None]
        if self.aligned and context is not None:
            context = jax.lax.dynamic_slice_in_dim(context, t, len(z))
        for layer, (dilation, queue) in enumerate(zip(self.dilations, queues, strict=True)):
            gates, queue = convolve(queue, z, t, self.W[...][layer], dilation)
            gates = gates + self.b[...][layer][None]
            if context is not None:
                gates = gates + jnp.atleast_2d(context @ self.U[...][layer])
            f, s = jnp.split(gates, 2, axis=-1)
            g = jnp.tanh(f) * jax.nn.sigmoid(s)
            z = z + multiply_rows(g, self.R[...][layer])
            skips = skips + multiply_rows(g, self.S[...][layer])
            new.append(queue)
        h = multiply_rows(jax.nn.relu(skips), self.A[...]) + self.a[...][None]
        h = multiply_rows(jax.nn.relu(h), self.B[...]) + self.b_out[...][None]
        return h, (new, given)
