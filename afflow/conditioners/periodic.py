"""A conditioner of angles."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_instance
from afflow.core.conditioner import Conditioner


class Periodic(Conditioner):
    r"""A conditioner that sees angles through their cosines and sines.

    The parameters, and a density with these parameters, are therefore periodic. Row `t` is row
    `2 t` of the inner conditioner at $(\cos x_0, \sin x_0, \cos x_1, \dots)$. A coordinate that
    is no angle enters as $(x_i, 0)$.

    Rezende et al. 2020, arXiv:2002.02428.

    Args:
        conditioner: the inner conditioner, of `2 D` coordinates.
        angles: the indices of the angles, `[0, 2]` say; all coordinates by default.

    Raises:
        ValueError: if the conditioner has an odd number of coordinates, or if an index is no
            integer in `0..D-1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> angles = afflow.conditioners.Periodic(afflow.MADE(6, 2, rngs=nnx.Rngs(0)))
        >>> angles(jnp.ones(3)).shape
        (3, 2)
    """

    ABSENT: ClassVar = {"angles": None}  # value for archives from before angles could be chosen

    def __init__(self, conditioner: Conditioner, angles: Sequence[int] | None = None):
        check_instance("conditioner", conditioner, Conditioner)
        size, odd = divmod(conditioner.event_shape[0], 2)
        if odd:
            raise ValueError(f"Expected a conditioner of 2 D coordinates, got {2 * size + 1}.")
        indices = np.arange(size) if angles is None else np.asarray(angles)
        if indices.dtype.kind not in "iu" or not np.isin(indices, np.arange(size)).all():
            raise ValueError(f"Expected indices of angles in 0..{size - 1}, got {angles}.")
        self.conditioner = conditioner
        self.angles = None if angles is None else tuple(indices.reshape(-1).tolist())
        self.event_shape = (size,)
        self.context_shape = conditioner.context_shape
        self.num_params = conditioner.num_params

    @property
    def is_incremental(self) -> bool:
        return self.conditioner.is_incremental

    def __call__(self, x, context=None):
        features = jnp.stack(self._encode(x, self._find_angles()), -1).reshape(-1)  # (2 D,)
        return self.conditioner(features, context)[::2]

    def init_cache(self, context=None, dtype=float):
        return self.conditioner.init_cache(context, dtype)

    def step(self, x_prev, t, cache):
        first, second = self._encode(x_prev, self._find_angles()[t - 1])
        _, moved = self.conditioner.step(first, jnp.maximum(2 * t - 1, 0), cache)
        cache = jax.tree.map(lambda new, old: jnp.where(t > 0, new, old), moved, cache)
        return self.conditioner.step(second, 2 * t, cache)

    def _find_angles(self) -> jax.Array:
        """Return which coordinates are angles, `(D,)`."""
        places = np.arange(self.event_shape[0])
        return jnp.array(np.isin(places, places if self.angles is None else self.angles))

    @staticmethod
    def _encode(x: jax.Array, is_angle: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the two features of each coordinate."""
        return jnp.where(is_angle, jnp.cos(x), x), jnp.where(is_angle, jnp.sin(x), 0)
