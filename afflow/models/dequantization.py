"""Densities of integers, such as images: dequantization noise, and bits per dimension."""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from afflow._tools.arrays import real_array, to_device
from afflow._tools.calls import check_ending, make_typed
from afflow._tools.numerics import log_mean_exp
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_shape, check_size
from afflow.models.flow import Flow

_MAX_MARGIN = 2.0**-7  # of a level, on each side; the noise then takes some hundred values


def dequantize(key: jax.Array, x: jax.Array, levels: int = 256) -> jax.Array:
    r"""Add uniform noise to integers and scale them to the unit interval: $(x + u) / n$.

    The mean log-density of the result is at most the log-probability of the integers plus
    $D \log n$ (Theis et al. 2016, arXiv:1511.01844, section 3.1).

    Args:
        key: a PRNG key for the noise.
        x: integers from 0 to `levels - 1`, any shape.
        levels: the number of integers $n$.

    Returns:
        Floats in [0, 1). `quantize` maps them back to `x`.

    Raises:
        ValueError: if `x` is not of an integer type, or has values out of range; if `levels` is
            below 2, or above 2^15 in float32, which leaves no room for noise.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> x = jnp.array([0, 255])
        >>> afflow.models.quantize(afflow.dequantize(jax.random.key(0), x)).tolist()
        [0, 255]
    """
    return _fill(x, jax.random.uniform(make_typed(key), jnp.shape(x)), levels)


def quantize(y: jax.Array, levels: int = 256) -> jax.Array:
    """Return the integers of values in [0, 1); values outside are clipped.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.models.quantize(jnp.array([0.0, 0.6, 1.0]), levels=2).tolist()
        [0, 1, 1]
    """
    return jnp.clip(jnp.floor(y * levels), 0, levels - 1).astype(int)


def bits_per_dim(log_prob: jax.Array, event_shape: int | Shape, levels: int = 256) -> jax.Array:
    r"""Return the bits per coordinate: $-\log_2 p(y) / D + \log_2 n$.

    Args:
        log_prob: log-densities, in nats, of events scaled to [0, 1) as by `dequantize`. Or
            log-probabilities of integers, with `levels=1`.
        event_shape: the shape of an event, or its number of coordinates.
        levels: the number of integers $n$ in the unit interval.

    Raises:
        ValueError: if `log_prob` is not an array of numbers, or for sizes below one.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bits_per_dim(jnp.zeros(()), 784).item()  # the uniform density
        8.0
    """
    dims = math.prod(check_shape("event_shape", event_shape))
    check_size("levels", levels)
    log_prob = real_array("log_prob", log_prob)
    return -log_prob / (dims * math.log(2)) + math.log2(levels)


class VariationalDequantization(Outlined, nnx.Module):
    r"""A density of integers whose dequantization noise is learned as well.

    $$\log p(x) \ge \mathbb{E}_{q(u \mid x)}\big[\log p(y) - \log q(u \mid x)\big],
    \qquad y = (x + u) / n,$$

    up to the constant $D \log n$ that `bits_per_dim` counts. Uniform noise is the case $q = 1$. Ho
    et al. 2019, arXiv:1902.00275, section 3.1.

    Args:
        flow: the density $p$ of values in [0, 1).
        noise: the density $q$ of the noise, ending in an `Interval` from 0 to 1. Its context is the
            event, scaled to between -1 and 1. Every call samples from it, so prefer layers that
            sample in one pass.
        levels: the number of integers $n$.

    Raises:
        ValueError: if the shapes of the two flows disagree, or `flow` takes a context.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> made = afflow.MADE(2, 2, (8,), context_dim=2, rngs=nnx.Rngs(0))
        >>> layer = afflow.Inverse(afflow.MaskedAutoregressive(made, afflow.Affine()))
        >>> unit = afflow.bijectors.Interval(jnp.zeros(2), jnp.ones(2))
        >>> noise = afflow.Flow(afflow.distributions.Logistic(2), afflow.Chain([layer, unit]))
        >>> flow = afflow.Flow(afflow.Uniform(2), afflow.Reverse(2))
        >>> model = afflow.models.VariationalDequantization(flow, noise)
        >>> abs(model.log_prob(jax.random.key(0), jnp.array([3, 255]))).item() < 1e-3
        True
    """

    def __init__(self, flow: Flow, noise: Flow, levels: int = 256):
        expected = (flow.event_shape, None, flow.event_shape, flow.event_shape)
        given = (flow.event_shape, flow.context_shape, noise.event_shape, noise.context_shape)
        if given != expected:
            raise ValueError(
                f"Expected (flow.event_shape, flow.context_shape, noise.event_shape, "
                f"noise.context_shape) {expected}, got {given}."
            )
        self.flow = flow
        self.noise = noise
        self.levels = levels
        self.event_shape = flow.event_shape

    def log_prob(self, key: jax.Array, x: jax.Array, num_samples: int = 1) -> jax.Array:
        """Return an unbiased estimate `(...)` of a lower bound on the log-density.

        With several samples the bound is the importance-weighted bound, tighter with each sample
        (Burda et al. 2016, arXiv:1509.00519).

        Args:
            key: a PRNG key for the noise.
            x: integers `(..., *event_shape)` from 0 to `levels - 1`.
            num_samples: draws of the noise for each event.

        Raises:
            ValueError: for numbers that are not integers in this range, or another shape.
        """
        check_size("num_samples", num_samples)
        x = check_ending("x", to_device("x", x), self.event_shape)
        _check_levels(x, self.levels)
        return _log_prob(self, key, x, num_samples)


class Dequantized(Outlined, nnx.Module):
    r"""A density of vectors with some coordinates that are whole numbers.

    $$\log P(k) \ge \mathbb{E}_u \log \frac1S \sum_{s \le S} p(k + u_s), \qquad
    u_s \sim U(0, 1)^D,$$

    with noise in the coordinates of whole numbers only. Training takes one draw. Theis et al. 2016,
    arXiv:1511.01844, section 3.1; Burda et al. 2016, arXiv:1509.00519.

    Args:
        flow: the density $p$ of vectors.
        is_discrete: whether each coordinate is a whole number, below 2^13 in size.
        num_draws: the number of draws $S$ in `log_prob`, one in each interval of width $1/S$ of the
            gap.

    Raises:
        ValueError: if `num_draws` is below 1, or `flow` has another number of coordinates than
            `is_discrete`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> flow = afflow.Flow(afflow.Uniform(1, 0.0, 4.0), afflow.Reverse(1))
        >>> dice = afflow.models.Dequantized(flow, [True])
        >>> round(jnp.exp(dice.log_prob(jnp.array([3.0]))).item(), 4)
        0.25
    """

    def __init__(self, flow: Flow, is_discrete: Sequence[bool], num_draws: int = 16):
        check_size("num_draws", num_draws)
        if flow.event_shape != (len(is_discrete),):
            raise ValueError(
                f"Expected a flow of {len(is_discrete)} coordinates, got {flow.event_shape}."
            )
        self.flow = flow
        self.is_discrete = tuple(map(bool, is_discrete))
        self.num_draws = num_draws
        self.event_shape, self.context_shape = flow.event_shape, flow.context_shape

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-probability `(...)` of `x` `(..., D)`, a lower bound in expectation.

        The noise comes from a fixed seed; the same call returns the same value. The probability is
        zero where a coordinate of whole numbers has a fraction.

        Args:
            x: events.
            context: `(..., *context_shape)`.
            chunk: the number of events in memory at a time, by default all.
        """
        x = jnp.asarray(x, float)
        order_key, key = jax.random.split(jax.random.key(0))
        size = self.num_draws, len(self.is_discrete)
        strata = jnp.argsort(jax.random.uniform(order_key, size), axis=0)  # a Latin hypercube
        u = (strata.astype(float) + jax.random.uniform(key, size)) / self.num_draws

        def score(noise):
            noise = jnp.broadcast_to(noise, x.shape)
            return self.flow.log_prob(self._fill(x, noise), context, chunk=chunk)

        is_broken = (self._mask(x) & (x != jnp.floor(x)) & ~jnp.isnan(x)).any(-1)
        log_prob = log_mean_exp(jax.lax.map(score, u))
        return jnp.where(is_broken & ~jnp.isnan(log_prob), -jnp.inf, log_prob)

    @property
    def is_stateful(self) -> bool:
        """Whether the flow has an embedding network with statistics or randomness."""
        return self.flow.is_stateful

    def embed_to_train(self, contexts: jax.Array) -> tuple["Dequantized", jax.Array]:
        """Return the model behind a network in training mode; see `Flow.embed_to_train`."""
        flow, contexts = self.flow.embed_to_train(contexts)
        return Dequantized(flow, self.is_discrete, self.num_draws), contexts

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-density `(...)` of `x` with one draw of the noise."""
        noise_key = jax.random.fold_in(make_typed(key), 1)
        return self.flow.training_log_prob(noise_key, self._draw(key, x), context)

    def without_noise(self) -> "Dequantized":
        """Return the model without dropout, for validation. It still draws noise on the values."""
        return Dequantized(self.flow.without_noise(), self.is_discrete, self.num_draws)

    def check_missing(self, x: np.ndarray) -> None:
        """Raise `ValueError` for rows `x` whose NaN are not at the end; see `Flow`."""
        self.flow.check_missing(x)

    def observed_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-density `(...)` of what is not NaN in `x`, with one draw of the noise."""
        noise_key = jax.random.fold_in(make_typed(key), 1)
        return self.flow.observed_log_prob(noise_key, self._draw(key, x), context)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw samples as `Flow.sample` does, with the noise removed from whole numbers."""
        x = self.flow.sample(key, shape, context, chunk=chunk)
        return jnp.where(self._mask(x), jnp.floor(x), x)

    def sample_and_log_prob(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        chunk: int | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Draw samples as `sample` does, and return them with their log-probabilities."""
        x = self.sample(key, shape, context, chunk=chunk)
        return x, self.log_prob(x, context, chunk=chunk)

    def _draw(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Add one draw of the noise to the coordinates of `x` that are whole numbers."""
        x = jnp.asarray(x, float)
        return self._fill(x, jax.random.uniform(make_typed(key), x.shape))

    def _fill(self, x: jax.Array, u: jax.Array) -> jax.Array:
        """Add noise `u` to the coordinates of `x` that are whole numbers."""
        edge = 4 * jnp.finfo(x.dtype).eps * jnp.clip(jnp.abs(x), 1, 2**13)  # u must not round away
        return jnp.where(self._mask(x), x + jnp.clip(u.astype(x.dtype), edge, 1 - edge), x)

    def _mask(self, x: jax.Array) -> np.ndarray:
        return np.broadcast_to(self.is_discrete, x.shape)


@partial(jax.jit, static_argnums=3)
def _log_prob(model, key, x, num_samples):
    u, log_q = model.noise.sample_and_log_prob(key, num_samples, _draw_centred(x, model.levels))
    y = _fill(jnp.broadcast_to(x, u.shape), u, model.levels)
    log_weights = model.flow.log_prob(y) - log_q
    return log_mean_exp(log_weights)


def _fill(x: jax.Array, u: jax.Array, levels: int) -> jax.Array:
    """Return `(x + u) / levels`, with `u` clipped so that rounding never changes `x`."""
    check_size("levels", levels, least=2)
    _check_levels(x, levels)
    margin = 2 * levels * jnp.finfo(u.dtype).eps
    if margin > _MAX_MARGIN:
        raise ValueError(
            f"Expected levels <= {int(_MAX_MARGIN / margin * levels)}, which {u.dtype} fills with "
            f"noise, got {levels}: set jax_enable_x64, or model the values as continuous."
        )
    return (x + jnp.clip(u, margin, 1 - margin)) / levels


def _check_levels(x: jax.Array, levels: int) -> None:
    """Raise `ValueError` unless `x` holds integers from 0 to `levels - 1`."""
    if not jnp.issubdtype(jnp.result_type(x), jnp.integer):
        raise ValueError(f"Expected integers from 0 to {levels - 1}, got {jnp.result_type(x)}.")
    if not isinstance(x, Tracer) and np.size(x):
        values = np.asarray(x)  # numbers also where a caller is being compiled
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= levels:
            raise ValueError(
                f"Expected integers from 0 to {levels - 1}, got {low} to {high}: subtract the "
                f"least of them, or give more levels."
            )


def _draw_centred(x: jax.Array, levels: int) -> jax.Array:
    """Return integers from 0 to `levels - 1` as floats between -1 and 1."""
    return (2 * jnp.asarray(x, float) + 1) / levels - 1
