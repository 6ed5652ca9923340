"""Mixtures of a continuous kernel: the conditionals of RNADE."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_instance
from afflow._tools.numerics import log_sum_exp, stop_beyond
from afflow.core.conditional import Conditional, as_float, without_infinities
from afflow.univariates.mixture_cdf import Component, GaussianCDF, check_mixture, mixture_parameters


@dataclass(frozen=True)
class MixtureOf(Conditional):
    r"""$p(x; \theta) = \sum_k \pi_k\, g\big((x - \mu_k) / s_k\big) / s_k$ with a kernel $g$.

    The kernel is the density of a component: `GaussianCDF()` (RNADE-MoG), `LaplaceCDF()`
    (RNADE-MoL) or `LogisticCDF()`. The parameters have the layout of `MixtureCDF`.
    `MixtureCDF` reads the same density as a map $x \mapsto G^{-1}(F(x))$ to noise with the
    distribution function $G$.

    `mode` is the location $\mu_k$ with the highest density. At temperature $T$ the weights are
    $\pi_k^{1/T}$ and the scales $s_k \sqrt T$.

    Uria, Murray & Larochelle 2013, arXiv:1306.0186.

    Args:
        num_components: the number of components `K`.
        component: the kernel.
        max_log_scale: the bound on $|\log s_k - c|$, where $c$ is the log-scale at the start.
        spread: how far apart the components start, in [0, 1), as in `MixtureCDF`.

    Raises:
        ValueError: if `num_components < 1`, `max_log_scale <= 0` or `spread` is out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> from afflow.conditionals import MixtureOf
        >>> round(MixtureOf(1).log_prob(jnp.array(0.0), jnp.zeros(3)).item(), 4)
        -0.9189
    """

    ABSENT: ClassVar = {"spread": 0.0}  # in archives from before components started apart

    num_components: int = 10
    component: Component = GaussianCDF()
    max_log_scale: float = 7.0
    spread: float = 0.5
    is_discrete = False

    def __post_init__(self):
        check_instance("component", self.component, Component)
        check_mixture(self.num_components, self.max_log_scale, self.spread)

    @property
    def num_params(self) -> int:
        return 3 * self.num_components

    def log_prob(self, x, params):
        log_pi, mu, log_s = self._parameters(params)
        centred = without_infinities(as_float(x)) - mu
        u = stop_beyond(centred * jnp.exp(-log_s), 0.9)  # the gradient by a scale would overflow
        log_prob = log_sum_exp(log_pi + self.component.log_density(u) - log_s)
        return jnp.where(jnp.isinf(x), -jnp.inf, log_prob)

    def sample(self, key, params, temperature=1.0):
        log_pi, mu, log_s = self._parameters(params)
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, log_pi / temperature)
        u = self.component.sample(noise, mu.dtype)
        return mu[k] + u * jnp.exp(log_s[k]) * jnp.sqrt(temperature)

    def mode(self, params):
        _, mu, _ = self._parameters(params)
        return mu[jnp.argmax(jax.vmap(self.log_prob, (0, None))(mu, params))]

    def cdf(self, x, params):
        log_pi, mu, log_s = self._parameters(params)
        log_below, _ = self.component.log_tail((mu - x) * jnp.exp(-log_s))
        return jnp.exp(log_sum_exp(log_pi + log_below))

    def encode(self, x):
        return as_float(x)

    def _parameters(self, params):
        return mixture_parameters(self, params)
