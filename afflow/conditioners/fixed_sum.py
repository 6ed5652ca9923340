"""A conditioner of binary coordinates whose sum is given."""

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_instance
from afflow._tools.shapes import check_size
from afflow.core.conditioner import Conditioner


class FixedSum(Conditioner):
    r"""A conditioner of binary coordinates that add up to a given number of ones.

    After `total` ones, every further coordinate is zero: its logit is $-\infty$. If all the
    remaining coordinates are needed, each is one: its logit is $+\infty$. A model with this
    conditioner has no probability outside of the constraint, and its probabilities and samples
    stay exact.

    Args:
        conditioner: the inner conditioner, of `D` coordinates with one logit each. The
            conditional of the model is `Bernoulli`.
        total: the number of ones, from 0 to `D`.

    Raises:
        ValueError: for a conditioner with several parameters or features per coordinate, or for
            a total out of range.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> two_of_four = afflow.conditioners.FixedSum(afflow.MADE(4, 1, (8,), rngs=nnx.Rngs(0)), 2)
        >>> model = afflow.AutoregressiveModel(two_of_four, afflow.conditionals.Bernoulli())
        >>> model.sample(jax.random.key(0), 9).sum(-1).tolist()
        [2, 2, 2, 2, 2, 2, 2, 2, 2]
    """

    def __init__(self, conditioner: Conditioner, total: int):
        check_instance("conditioner", conditioner, Conditioner)
        check_size("total", total, least=0)
        (dim, *features), num_params = conditioner.event_shape, conditioner.num_params
        if features or num_params != 1 or total > dim:
            raise ValueError(
                f"Expected a conditioner of at least {total} scalars with one parameter each, got "
                f"event_shape {conditioner.event_shape} and num_params={num_params}."
            )
        self.conditioner = conditioner
        self.total = int(total)
        self.event_shape, self.context_shape = conditioner.event_shape, conditioner.context_shape
        self.num_params = 1

    @property
    def is_incremental(self) -> bool:
        return self.conditioner.is_incremental

    def __call__(self, x, context=None):
        x = jnp.asarray(x, float)
        before = jnp.cumsum(x) - x  # (D,)
        logits = self.conditioner(x, context)  # (D, 1)
        return self._constrained(logits, before[:, None], jnp.arange(len(x))[:, None])

    def init_cache(self, context=None, dtype=float):
        return self.conditioner.init_cache(context, dtype), jnp.zeros((), dtype)

    def step(self, x_prev, t, cache):
        inner, count = cache
        count += jnp.where(t > 0, x_prev, 0).astype(count.dtype)
        logits, inner = self.conditioner.step(x_prev, t, inner)  # (1,)
        return self._constrained(logits, count, t), (inner, count)

    def _constrained(self, logits: jax.Array, before: jax.Array, t: jax.Array) -> jax.Array:
        left = jnp.asarray(self.event_shape[0] - t, before.dtype)
        missing = jnp.asarray(self.total, before.dtype) - before
        logits = jnp.where(missing >= left, jnp.inf, logits)
        return jnp.where(missing <= 0, -jnp.inf, logits)
