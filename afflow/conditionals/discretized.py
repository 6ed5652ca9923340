"""Discretised mixtures of logistics: the conditionals of pixels."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid

from afflow._tools.numerics import log_sum_exp
from afflow._tools.shapes import check_size
from afflow.core.conditional import (
    Conditional,
    as_float,
    check_support,
    keep_nan,
    without_infinities,
)
from afflow.univariates.mixture_cdf import LogisticCDF, check_mixture, mixture_parameters


@dataclass(frozen=True)
class DiscretizedLogistics(Conditional):
    r"""$p(x; \theta) = \sum_k \pi_k \big[\sigma(b_k) - \sigma(a_k)\big]$ over $0, \dots, L-1$.

    The levels divide $[-1, 1]$ into cells of width $2/(L-1)$ around $\tilde x = 2x/(L-1) - 1$.
    The cell of $x$ has the standardised edges $a_k$ and $b_k$,
    $(\tilde x \mp 1/(L-1) - \mu_k)/s_k$. The first and the last cell reach to infinity. The
    difference is computed in log space as $\sigma(b)\sigma(-a)(1 - e^{a-b})$, so no cell
    underflows. A conditioner reads $\tilde x$.

    The parameters are `K` logits, locations and log-scales as in `MixtureOf`.

    Salimans et al. 2017, arXiv:1701.05517.

    Args:
        num_components: the number of components `K`.
        num_levels: the number of integers `L`, at least 2.
        max_log_scale: the bound on $|\log s_k - c|$, where $c$ is the log-scale at the start.
        spread: how far apart the components start, in [0, 1), as in `MixtureCDF`.

    Raises:
        ValueError: for sizes out of range.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from afflow.conditionals import DiscretizedLogistics
        >>> pixel = DiscretizedLogistics(2)
        >>> log_p = jax.vmap(lambda x: pixel.log_prob(x, jnp.zeros(6)))(jnp.arange(256))
        >>> round(jnp.exp(log_p).sum().item(), 4)
        1.0
    """

    ABSENT: ClassVar = {"spread": 0.0}  # in archives from before components started apart

    num_components: int = 10
    num_levels: int = 256
    max_log_scale: float = 7.0
    spread: float = 0.5
    is_discrete = True

    def __post_init__(self):
        check_mixture(self.num_components, self.max_log_scale, self.spread)
        check_size("num_levels", self.num_levels, least=2)

    @property
    def component(self) -> LogisticCDF:
        """Return the distribution that the levels divide into cells."""
        return LogisticCDF()

    @property
    def num_values(self) -> int:
        return self.num_levels

    @property
    def num_params(self) -> int:
        return 3 * self.num_components

    def log_prob(self, x, params):
        log_pi, mu, log_s = mixture_parameters(self, params)
        log_cells = find_log_cells(without_infinities(as_float(x)), mu, log_s, self.num_levels)
        return check_support(log_sum_exp(log_pi + log_cells), x, self.num_levels)

    def sample(self, key, params, temperature=1.0):
        log_pi, mu, log_s = mixture_parameters(self, params)
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, log_pi / temperature)
        scale = jnp.exp(log_s[k]) * jnp.sqrt(temperature)
        drawn = mu[k] + scale * jax.random.logistic(noise, (), mu.dtype)
        return find_level(drawn, self.num_levels)

    def mode(self, params):
        levels = jnp.arange(self.num_levels)
        return levels[jnp.argmax(jax.vmap(self.log_prob, (0, None))(levels, params))]

    def cdf(self, x, params):
        log_pi, mu, log_s = mixture_parameters(self, params)
        edge = self.encode(jnp.floor(as_float(x)) + 0.5).astype(mu.dtype)
        log_below, _ = LogisticCDF().log_tail((mu - edge) * jnp.exp(-log_s))
        inside = jnp.where(x < 0, 0.0, jnp.exp(log_sum_exp(log_pi + log_below)))
        return keep_nan(jnp.where(x < self.num_levels - 1, inside, 1.0), x)

    def encode(self, x):
        return centre(x, self.num_levels)


def centre(x: jax.Array, num_levels: int) -> jax.Array:
    r"""Return $\tilde x = 2x/(L-1) - 1$, which lies in [-1, 1]."""
    return 2 * as_float(x) / (num_levels - 1) - 1


def find_level(centred: jax.Array, num_levels: int) -> jax.Array:
    """Return the level whose cell contains a value; the first and last cell have no outer end."""
    level = jnp.round((centred + 1) / 2 * (num_levels - 1))
    return jnp.clip(level, 0, num_levels - 1).astype(int)


def find_log_cells(x: jax.Array, mu: jax.Array, log_s: jax.Array, num_levels: int) -> jax.Array:
    r"""Return $\log[\sigma(b) - \sigma(a)]$ of the cell of level `x` under logistics.

    Args:
        x: a level in `0..L-1`.
        mu: locations of logistics, of any shape.
        log_s: their log-scales.
        num_levels: the number of levels `L`.
    """
    width = 2 / (num_levels - 1) * jnp.exp(-log_s)
    a = (centre(x, num_levels).astype(mu.dtype) - mu) * jnp.exp(-log_s) - width / 2
    below = jnp.where(x == num_levels - 1, 0.0, log_sigmoid(a + width))
    above = jnp.where(x == 0, 0.0, log_sigmoid(-a))
    at_end = (x == 0) | (x == num_levels - 1)
    return below + above + jnp.where(at_end, 0.0, jnp.log(-jnp.expm1(-width)))
