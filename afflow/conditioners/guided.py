"""Guidance: parameters moved away from the parameters of a weaker prediction."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from afflow._tools.arguments import check_instance, check_number, check_positive
from afflow._tools.constants import Constant
from afflow._tools.shapes import Shape
from afflow.conditioners.transformer import Transformer
from afflow.core.conditioner import Conditioner


class Guided(Conditioner):
    r"""A conditioner whose parameters move away from those of a weaker prediction.

    $$\tilde c_t(x, h) = c_t(x, h) + w_t \big(c_t(x, h) - c_t^\tau(x, h_0)\big),
    \qquad w_t = w\,\frac{t}{T - 1}.$$

    The weaker prediction sees a context $h_0$ that stands for no context. Its attention may have a
    temperature $\tau$, which guides an unconditional transformer. The parameters still depend on
    earlier tokens only. A flow with this conditioner therefore has an exact density. Decoding keeps
    two caches.

    Zhai et al. 2024, arXiv:2412.06329, section 2.6; Ho and Salimans 2022, arXiv:2207.12598.

    Args:
        conditioner: $c$, trained with the context replaced by $h_0$ now and then.
        weight: $w$. At 0 the parameters are the parameters of `conditioner`.
        null_context: $h_0$, of the shape of a context; zeros by default.
        temperature: $\tau$, for a `Transformer`.
        grows: whether the weight grows along the tokens. Otherwise $w_t = w$.

    Raises:
        ValueError: if the weaker prediction is the prediction itself: no context, and temperature
            1. Also for a `null_context` of another shape, or a temperature of a conditioner that
            is not a `Transformer`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> made = afflow.MADE(3, 2, (8,), context_dim=2, rngs=nnx.Rngs(0))
        >>> guided = afflow.conditioners.Guided(made, 1.5)
        >>> guided(jnp.ones(3), jnp.array([1.0, 0.0])).shape
        (3, 2)
    """

    def __init__(
        self,
        conditioner: Conditioner,
        weight: float,
        null_context: ArrayLike | None = None,
        *,
        temperature: float = 1.0,
        grows: bool = True,
    ):
        check_instance("conditioner", conditioner, Conditioner)
        check_number("weight", weight, lambda weight: weight >= 0, ">= 0")
        check_positive(temperature=temperature)
        if temperature != 1:
            check_instance("conditioner", conditioner, Transformer)
        elif conditioner.context_shape is None:
            raise ValueError(
                "Expected a conditioner with a context, or a temperature other than 1."
            )
        self.conditioner, self.grows, self.temperature = conditioner, grows, float(temperature)
        self.event_shape, self.num_params = conditioner.event_shape, conditioner.num_params
        self.context_shape = conditioner.context_shape
        self.weight = Constant(jnp.asarray(weight, float))
        self.null_context = _make_null(self.context_shape, null_context)

    @property
    def is_incremental(self) -> bool:
        return type(self.conditioner).step is not Conditioner.step

    @property
    def reads_at_once(self) -> bool:
        return self.conditioner.reads_at_once

    @property
    def cache_only_grows(self) -> bool:
        return self.conditioner.cache_only_grows

    def __call__(self, x, context=None):
        weak, null = self._make_weak(x.dtype)
        return self._move(self.conditioner(x, context), weak(x, null), 0)

    def init_cache(self, context=None, dtype=float):
        weak, null = self._make_weak(dtype)
        return self.conditioner.init_cache(context, dtype), weak.init_cache(null, dtype)

    def resize(self, cache, size):
        return tuple(self.conditioner.resize(part, size) for part in cache)

    def segments(self):
        return self.conditioner.segments()

    def step(self, x_prev, t, cache):
        strong, weak = self.conditioner, self._make_weak(x_prev.dtype)[0]
        given, first = strong.step(x_prev, t, cache[0])
        other, second = weak.step(x_prev, t, cache[1])
        return self._move(given[None], other[None], t)[0], (first, second)

    def prefill(self, x_prev, t, cache, key=None):
        strong, weak = self.conditioner, self._make_weak(x_prev.dtype)[0]
        given, first = strong.prefill(x_prev, t, cache[0], key)
        other, second = weak.prefill(x_prev, t, cache[1], key)
        return self._move(given, other, t), (first, second)

    def _make_weak(self, dtype: Any) -> tuple[Any, jax.Array | None]:
        """Return the conditioner and the context of the weaker prediction."""
        net: Any = self.conditioner
        weak = net if self.temperature == 1 else net.with_temperature(self.temperature)
        null = self.null_context
        return weak, None if null is None else null[...].astype(dtype)

    def _move(self, given: jax.Array, weak: jax.Array, t: Any) -> jax.Array:
        """Return the guided parameters `(n, P)` of the tokens `t, ..., t + n - 1`."""
        share = jnp.ones(len(given), given.dtype)
        if self.grows:
            places = (t + jnp.arange(len(given))).astype(given.dtype)
            share = places / max(self.event_shape[0] - 1, 1)
        weights = self.weight[...].astype(given.dtype) * share
        return given + weights[:, None] * (given - weak)


def _make_null(shape: Shape | None, null_context: ArrayLike | None) -> Constant | None:
    """Return the context that stands for no context, zeros by default."""
    if null_context is None:
        return None if shape is None else Constant(jnp.zeros(shape))
    if np.shape(null_context) != shape:
        raise ValueError(f"Expected null_context.shape {shape}, got {np.shape(null_context)}.")
    return Constant(jnp.asarray(null_context, float))
