"""Fixed reorderings of the coordinates of a vector."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow._tools.constants import Constant
from afflow._tools.shapes import check_permutation, check_size
from afflow.core.bijector import Bijector, of_one_event


class Permutation(Bijector):
    r"""A reordering of coordinates: $y_i = x_{\pi(i)}$, with log-determinant zero.

    Args:
        order: the permutation $\pi$ of `0..D-1`. It is a constant of the program, so all copies
            in a `Repeat` share it. `Shuffle` draws one order per copy.
        features: values in a token, 1 for a scalar. With more, an event is `(D, features)`, and
            whole tokens are reordered.

    Raises:
        ValueError: if `order` is not a permutation of `0..D-1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.Permutation([2, 0, 1]).forward(jnp.array([10.0, 20.0, 30.0])).tolist()
        [30.0, 10.0, 20.0]
    """

    def __init__(self, order: Sequence[int] | np.ndarray | jax.Array, *, features: int = 1):
        check_size("features", features)
        self.order = check_permutation("order", order)
        self.event_shape = (len(self.order),) if features == 1 else (len(self.order), features)
        self.context_shape = None

    @staticmethod
    def random(dim: int, key: jax.Array) -> "Permutation":
        """Draw a permutation of `dim` coordinates uniformly with `key`."""
        return Permutation(np.asarray(jax.random.permutation(key, dim)))

    @property
    def is_triangular(self) -> bool:
        return self.order == tuple(range(len(self.order)))

    @property
    def noise_order(self) -> tuple[int, ...]:
        places = np.arange(math.prod(self.event_shape)).reshape(self.event_shape)
        return tuple(places[np.array(self.order)].ravel().tolist())

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return x[np.array(self.order)], jnp.zeros((), jnp.float32)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return y[np.argsort(self.order)], jnp.zeros((), jnp.float32)


def Reverse(dim: int, *, features: int = 1) -> Permutation:  # noqa: N802 (reads as a bijector)
    """Return the `Permutation` of `dim` coordinates that reverses their order.

    Args:
        dim: number of coordinates, or of tokens.
        features: values in a token, 1 for a scalar; see `Permutation`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.Reverse(3).forward(jnp.array([1.0, 2.0, 3.0])).tolist()
        [3.0, 2.0, 1.0]
    """
    check_size("dim", dim)
    return Permutation(range(dim)[::-1], features=features)


class Shuffle(Bijector):
    r"""A random reordering, stored as an array: $y_i = x_{\pi(i)}$, with log-determinant zero.

    Each copy in a `Repeat` draws a separate order. The order is not trained.

    Args:
        dim: number of coordinates `D`.
        rngs: its `params` stream draws the permutation $\pi$ uniformly.

    Raises:
        ValueError: if `dim < 1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> shuffle = afflow.Shuffle(4, rngs=nnx.Rngs(0))
        >>> sorted(shuffle.forward(jnp.arange(4.0)).tolist())
        [0.0, 1.0, 2.0, 3.0]
    """

    def __init__(self, dim: int, *, rngs: nnx.Rngs):
        check_size("dim", dim)
        # As floats, because `jax.grad` refuses modules with arrays of integers.
        self.order = Constant(jax.random.permutation(draw_key(rngs), dim).astype(float))
        self.event_shape = (dim,)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return x[self._index()], jnp.zeros((), jnp.float32)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return y[jnp.argsort(self._index())], jnp.zeros((), jnp.float32)

    def _index(self):
        return self.order[...].astype(int)
