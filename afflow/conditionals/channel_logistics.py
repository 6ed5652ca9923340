"""Discretised mixtures of logistics over the channels of a pixel."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.numerics import log_sum_exp
from afflow._tools.shapes import Shape, check_size
from afflow.conditionals.discretized import (
    DiscretizedLogistics,
    centre,
    find_level,
    find_log_cells,
)
from afflow.core.conditional import (
    Conditional,
    as_float,
    check_support,
    find_mode_near,
    without_infinities,
)
from afflow.univariates.mixture_cdf import check_mixture, mixture_parameters


@dataclass(frozen=True)
class ChannelLogistics(Conditional):
    r"""A mixture over whole pixels, in which a channel depends linearly on the channels before.

    $$p(x; \theta) = \sum_k \pi_k \prod_{c=1}^C \big[\sigma(b_{kc}) - \sigma(a_{kc})\big], \qquad
    m_{kc} = \mu_{kc} + \sum_{d<c} \tanh(\alpha_{kcd})\, \tilde x_d.$$

    The cells and their edges $a$ and $b$ are the cells of `DiscretizedLogistics`, around the
    location $m_{kc}$. Green sees red, and blue sees both. The parameters are the `K` logits, then
    the $\mu$ and the log-scales `(C, K)`, then the $\alpha$ `(C (C-1)/2, K)`.

    `mode` takes the most probable level of each channel in turn, under every component, and returns
    the most probable of these `K` pixels. At temperature $T$ the weights are $\pi_k^{1/T}$ and the
    scales $s_{kc} \sqrt T$.

    Salimans et al. 2017, arXiv:1701.05517.

    Args:
        num_channels: the number of channels `C`.
        num_components: the number of components `K`.
        num_levels: the number of levels of a channel `L`, at least 2.
        max_log_scale: the bound on the log-scales, as in `DiscretizedLogistics`.
        spread: how far apart the components start, as in `DiscretizedLogistics`.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import ChannelLogistics
        >>> pixel = ChannelLogistics(3, 10)
        >>> pixel.num_params, pixel.log_prob(jnp.array([255, 0, 128]), jnp.zeros(100)).shape
        (100, ())
    """

    num_channels: int = 3
    num_components: int = 10
    num_levels: int = 256
    max_log_scale: float = 7.0
    spread: float = 0.5
    is_discrete = True

    def __post_init__(self):
        check_mixture(self.num_components, self.max_log_scale, self.spread)
        check_size("num_channels", self.num_channels)
        check_size("num_levels", self.num_levels, least=2)

    @property
    def event_shape(self) -> Shape:
        return (self.num_channels,)

    @property
    def features(self) -> int:
        return self.num_channels

    @property
    def num_params(self) -> int:
        size = self.num_channels
        return self.num_components * (1 + 2 * size + size * (size - 1) // 2)

    def log_prob(self, x, params):
        log_pi, mu, log_s, alpha = self._parameters(params)
        z = without_infinities(as_float(x))
        m = mu + jnp.einsum("cdk,d->ck", alpha, self.encode(z).astype(mu.dtype))
        cells = jax.vmap(find_log_cells, (0, 0, 0, None))(z, m, log_s, self.num_levels)  # (C, K)
        log_prob = log_sum_exp(log_pi + cells.sum(0))
        zero = jnp.zeros_like(log_prob)
        return log_prob + sum(check_support(zero, value, self.num_levels) for value in x)

    def sample(self, key, params, temperature=1.0):
        log_pi, mu, log_s, alpha = self._parameters(params)
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, log_pi / temperature)
        u = jax.random.logistic(noise, (self.num_channels,), mu.dtype)
        u = u * jnp.exp(log_s[:, k]) * jnp.sqrt(temperature)

        def draw(c, m):
            return find_level(m + u[c], self.num_levels)

        return self._in_turn(mu[:, k], alpha[:, :, k], draw)

    def mode(self, params):
        log_pi, mu, log_s, alpha = self._parameters(params)
        levels = jnp.arange(self.num_levels)
        cells = jax.vmap(find_log_cells, (0, None, None, None))

        def find_pixel(k):
            def choose(c, m):
                return jnp.argmax(cells(levels, m, log_s[c, k], self.num_levels)).astype(int)

            return self._in_turn(mu[:, k], alpha[:, :, k], choose)

        pixels = jax.vmap(find_pixel)(jnp.arange(self.num_components))
        return pixels[jnp.argmax(jax.vmap(self.log_prob, (0, None))(pixels, params))]

    def mode_near(self, x, radius, params):
        """Return the pixel whose channels are, in turn, the most probable levels near `x`."""
        log_pi, mu, log_s, alpha = self._parameters(params)
        levels, z = jnp.arange(self.num_levels), jnp.zeros(self.num_channels, int)
        cells = jax.vmap(find_log_cells, (0, None, None, None))
        for c in range(self.num_channels):
            m = mu[c] + self.encode(z).astype(mu.dtype) @ alpha[c]
            joint = log_pi[None] + cells(levels, m, log_s[c], self.num_levels)  # (L, K)
            z = z.at[c].set(find_mode_near(jax.vmap(log_sum_exp)(joint), x[c], radius))
            log_pi = joint[z[c]]  # of each component and the channels chosen so far
        return z

    def cdf(self, x, params):
        raise NotImplementedError("Expected a conditional of scalars: vectors have no order.")

    def encode(self, x):
        return centre(x, self.num_levels)

    def _in_turn(self, mu, alpha, choose):
        """Return the pixel `(C,)` whose channel `c` is `choose(c, m)` at its location `m`."""
        x = jnp.zeros(self.num_channels, int)
        for c in range(self.num_channels):
            m = mu[c] + alpha[c] @ self.encode(x).astype(mu.dtype)
            x = x.at[c].set(choose(c, m))
        return x

    def _parameters(self, params):
        r"""Return $\log\pi$ `(K,)`, $\mu$ and $\log s$ `(C, K)`, $\tanh\alpha$ `(C, C, K)`."""
        size, num = self.num_channels, self.num_components
        logits, mu, s, alpha = jnp.split(params, [num, num * (1 + size), num * (1 + 2 * size)])
        scalar = DiscretizedLogistics(num, self.num_levels, self.max_log_scale, self.spread)

        def read(mu, s):
            return mixture_parameters(scalar, jnp.concatenate([logits, mu, s]))

        log_pi, mu, log_s = jax.vmap(read)(mu.reshape(size, num), s.reshape(size, num))
        lower = np.tril_indices(size, -1)
        square = jnp.zeros((size, size, num), params.dtype)
        alpha = square.at[lower].set(jnp.tanh(alpha).reshape(-1, num))
        return log_pi[0], mu, log_s, alpha
