"""A flow of noisy images, as a model of images whose values lie on a grid."""

import math
from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_instance, check_number, check_positive
from afflow._tools.arrays import to_device
from afflow._tools.calls import call, check_ending, check_floating, make_typed, per_event
from afflow._tools.modules import copy_module
from afflow._tools.numerics import log_mean_exp
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_size
from afflow.models.flow import Flow

_TOLERANCE = 0.01  # of a step of the grid, within which a value is on the grid


class NoisyFlow(Outlined, nnx.Module):
    r"""A model of events with values on a grid: a flow of noisy events, and their denoising.

    $$\log P(x \mid h) \ge \mathbb{E}_{q(y \mid x)}\big[\log p(y \mid h) + \log P(x \mid y)
    - \log q(y \mid x)\big], \qquad q(y \mid x) = \mathcal{N}(y;\, x, \sigma^2),$$

    where $P(x_i \mid y_i) \propto e^{-(x_i - y_i)^2 / 2\sigma^2}$ over the grid. Training maximises
    $\log p(y)$ only, because the other terms have no parameters. The noise takes the place of
    dequantization. A sample is a draw $y$ without the expected noise (Tweedie's formula),

    $$\hat x = y + \sigma^2 \nabla_y \log p(y \mid h).$$

    Zhai et al. 2024, arXiv:2412.06329, sections 2.4 and 2.5.

    Args:
        flow: the density $p$ of noisy events.
        noise_std: $\sigma$.
        drop_context: the probability to train an event with zeros in place of its context, for
            `zoo.guide`.
        levels: the number of values of the grid.
        low: the least value of the grid.
        high: the largest value of the grid.
        num_draws: draws of $y$ in `log_prob`.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> model = afflow.models.NoisyFlow(flow, 0.1, levels=3)
        >>> x = jnp.array([[-1.0, 0.0], [1.0, 1.0]])
        >>> model.log_prob(x).shape, model.sample(jax.random.key(0), 5).shape
        ((2,), (5, 2))
    """

    def __init__(
        self,
        flow: Flow,
        noise_std: float,
        *,
        drop_context: float = 0.1,
        levels: int = 256,
        low: float = -1.0,
        high: float = 1.0,
        num_draws: int = 1,
    ):
        check_instance("flow", flow, Flow)
        check_positive(noise_std=noise_std)
        check_number("drop_context", drop_context, lambda share: 0 <= share < 1, "in [0, 1)")
        check_size("levels", levels, least=2)
        check_size("num_draws", num_draws)
        check_number("low", low, lambda low: abs(low) < math.inf, "finite")
        check_number("high", high, lambda high: high > low, f"above {low}")
        self.flow = flow
        self.noise_std, self.drop_context = float(noise_std), float(drop_context)
        self.levels, self.low, self.high = levels, float(low), float(high)
        self.num_draws = num_draws
        self.event_shape, self.context_shape = flow.event_shape, flow.context_shape

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-probability `(...)` of events, a lower bound in expectation.

        It is minus infinity for events with a value that is not on the grid.

        The noise comes from a fixed seed; the same call returns the same value. With several draws
        the bound is the importance-weighted bound, tighter with each draw (Burda et al. 2016,
        arXiv:1509.00519).

        Args:
            x: events `(..., *event_shape)`.
            context: `(..., *context_shape)`.
            chunk: the number of events in memory at a time, by default all.
        """
        x = check_ending("x", to_device("x", x, float), self.event_shape)
        return call(_log_prob, self, (x,), context, key=jax.random.key(0), chunk=chunk)

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-density `(...)` of noisy events, some of them without their context."""
        key = make_typed(key)
        noise_key, drop_key = jax.random.split(key)
        if context is not None and self.context_shape is not None:
            leading = context.shape[: context.ndim - len(self.context_shape)]
            dropped = jax.random.bernoulli(drop_key, self.drop_context, leading)
            dropped = dropped.reshape(*leading, *(1,) * (context.ndim - len(leading)))
            context = jnp.where(dropped, jnp.zeros_like(context), context)
        y = self._add_noise(noise_key, jnp.asarray(x, float))
        return self.flow.training_log_prob(jax.random.fold_in(key, 2), y, context)

    def without_noise(self) -> Self:
        """Return the model that trains on every context without dropout. Events stay noisy."""
        return copy_module(self, drop_context=0.0, flow=self.flow.without_noise())

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        denoise: bool = True,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw samples as `Flow.sample` does, and remove their noise.

        Args:
            key: a PRNG key.
            shape: the number or shape of samples for each context.
            context: `(*context_batch, *context_shape)`.
            denoise: whether to remove the noise.
            chunk: number of samples to draw and to denoise at a time, by default all.
        """
        y = self.flow.sample(key, shape, context, chunk=chunk)
        return self.denoise(y, context, chunk=chunk) if denoise else y

    def denoise(
        self, y: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        r"""Return noisy events without their expected noise: $y + \sigma^2 \nabla \log p(y)$.

        Args:
            y: events `(..., *event_shape)`.
            context: `(..., *context_shape)`.
            chunk: the number of events in memory at a time, by default all.
        """
        y = check_floating("y", y, self.event_shape)
        return call(_denoise, self, (y,), context, chunk=chunk)

    def _add_noise(self, key: jax.Array, x: jax.Array) -> jax.Array:
        return x + self.noise_std * jax.random.normal(key, x.shape, x.dtype)

    def _compare_kernels(self, y: jax.Array) -> jax.Array:
        r"""Return $\log P(x \mid y) - \log q(y \mid x)$ for an event; it does not depend on `x`."""
        grid = jnp.linspace(self.low, self.high, self.levels, dtype=y.dtype)
        distances = (y[..., None] - grid.reshape(*(1,) * y.ndim, -1)) / self.noise_std
        log_sums = jax.nn.logsumexp(-jnp.square(distances) / 2, axis=-1)
        log_q = -math.log(self.noise_std * math.sqrt(2 * math.pi))
        return (-log_q - log_sums).sum()

    def _is_off_grid(self, x: jax.Array) -> jax.Array:
        """Return which values of `x` are not on the grid; NaN counts as on the grid."""
        steps = (x - self.low) * ((self.levels - 1) / (self.high - self.low))
        nearest = jnp.clip(jnp.round(steps), 0, self.levels - 1)
        return jnp.abs(steps - nearest) > _TOLERANCE


@per_event
def _log_prob(model, item, context):
    x, key = item
    is_off = model._is_off_grid(x)
    z = jnp.where(is_off, model.low, x)

    def weigh(key):
        y = model._add_noise(key, z)
        return model.flow.log_prob(y, context) + model._compare_kernels(y)

    log_prob = log_mean_exp(jax.lax.map(weigh, jax.random.split(key, model.num_draws)))
    return log_prob + jnp.where(is_off.any(), -jnp.inf, 0.0)  # NaN stays NaN


@per_event
def _denoise(model, item, context):
    (y,) = item
    return y + model.noise_std**2 * jax.grad(model.flow.log_prob)(y, context)
