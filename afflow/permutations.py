"""Fixed reorderings of the coordinates of a vector."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from afflow.bijector import Bijector, of_one_event


class Permutation(Bijector):
    r"""Reorder coordinates: $y_i = x_{\pi(i)}$, with log-determinant zero.

    Args:
        order: the permutation $\pi$ of `0..D-1`; need not be its own inverse.

    Raises:
        ValueError: if `order` is not a permutation of `0..D-1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.Permutation([2, 0, 1]).forward(jnp.array([10.0, 20.0, 30.0])).tolist()
        [30.0, 10.0, 20.0]
    """

    def __init__(self, order: Sequence[int] | np.ndarray | jax.Array):
        self.order = tuple(int(i) for i in order)
        dim = len(self.order)
        if dim == 0 or sorted(self.order) != list(range(dim)):
            raise ValueError(f"Expected a permutation of 0..{dim - 1}, got {self.order}.")
        self.event_shape = (dim,)
        self.context_shape = None

    @staticmethod
    def random(dim: int, key: jax.Array) -> "Permutation":
        """Draw a permutation of `dim` coordinates uniformly with `key`."""
        return Permutation(np.asarray(jax.random.permutation(key, dim)))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return x[np.array(self.order)], jnp.zeros((), jnp.float32)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return y[np.argsort(self.order)], jnp.zeros((), jnp.float32)


def Reverse(dim: int) -> Permutation:  # noqa: N802 (reads as a bijector)
    """Return the `Permutation` of `dim` coordinates that reverses their order.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.Reverse(3).forward(jnp.array([1.0, 2.0, 3.0])).tolist()
        [3.0, 2.0, 1.0]
    """
    return Permutation(range(dim)[::-1])
