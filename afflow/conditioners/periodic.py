"""A conditioner of angles."""

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_instance
from afflow.core.conditioner import Conditioner


class Periodic(Conditioner):
    r"""A conditioner that sees angles through their cosines and sines.

    The parameters, and a density with these parameters, are therefore periodic. Row `t` is row
    `2 t` of the inner conditioner at $(\cos x_0, \sin x_0, \cos x_1, \dots)$.

    Rezende et al. 2020, arXiv:2002.02428.

    Args:
        conditioner: the inner conditioner, of `2 D` coordinates.

    Raises:
        ValueError: if the conditioner has an odd number of coordinates.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> angles = afflow.conditioners.Periodic(afflow.MADE(6, 2, rngs=nnx.Rngs(0)))
        >>> angles(jnp.ones(3)).shape
        (3, 2)
    """

    def __init__(self, conditioner: Conditioner):
        check_instance("conditioner", conditioner, Conditioner)
        size, odd = divmod(conditioner.event_shape[0], 2)
        if odd:
            raise ValueError(f"Expected a conditioner of 2 D coordinates, got {2 * size + 1}.")
        self.conditioner = conditioner
        self.event_shape = (size,)
        self.context_shape = conditioner.context_shape
        self.num_params = conditioner.num_params

    @property
    def is_incremental(self) -> bool:
        return self.conditioner.is_incremental

    def __call__(self, x, context=None):
        features = jnp.stack([jnp.cos(x), jnp.sin(x)], -1).reshape(-1)  # (2 D,)
        return self.conditioner(features, context)[::2]

    def init_cache(self, context=None, dtype=float):
        return self.conditioner.init_cache(context, dtype)

    def step(self, x_prev, t, cache):
        _, moved = self.conditioner.step(jnp.cos(x_prev), jnp.maximum(2 * t - 1, 0), cache)
        cache = jax.tree.map(lambda new, old: jnp.where(t > 0, new, old), moved, cache)
        return self.conditioner.step(jnp.sin(x_prev), 2 * t, cache)
