"""Bijectors side by side, on disjoint sets of coordinates."""

from collections.abc import Sequence
from operator import index
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_instances
from afflow._tools.shapes import check_size, find_context_shape
from afflow.core.bijector import Bijector, of_one_event


class Blockwise(Bijector):
    r"""Bijectors side by side, on disjoint sets of coordinates.

    $$y_{B_k} = f_k(x_{B_k}), \qquad \log|\det J| = \sum_k \log|\det J_{f_k}|.$$

    Coordinates in no block stay as they are.

    Args:
        dim: number of coordinates `D`.
        bijectors: the maps $f_k$ of vectors.
        blocks: the coordinates $B_k$ of each map, without repetitions.

    Raises:
        ValueError: if there are not as many blocks as bijectors, a block is not as long as its
            bijector's events, or a coordinate is out of range or in two blocks.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> maps = [afflow.bijectors.Positive(1), afflow.bijectors.Interval([0.0], [1.0])]
        >>> both = afflow.bijectors.Blockwise(3, maps, [[2], [0]])
        >>> both.forward(jnp.array([0.0, 7.0, 100.0])).tolist()
        [0.5, 7.0, 100.0]
    """

    def __init__(self, dim: int, bijectors: Sequence[Bijector], blocks: Sequence[Sequence[int]]):
        check_size("dim", dim)
        self.blocks = _check_blocks(blocks)
        check_instances("bijectors", bijectors, Bijector)
        shapes = [bijector.event_shape for bijector in bijectors]
        if shapes != [(len(block),) for block in self.blocks]:
            raise ValueError(
                f"Expected a block of coordinates for each bijector, as long as its events, got "
                f"blocks {self.blocks} for event shapes {shapes}."
            )
        used = [i for block in self.blocks for i in block]
        if len(set(used)) < len(used) or not set(used) <= set(range(dim)):
            raise ValueError(
                f"Expected blocks of different coordinates from 0 to {dim - 1}, got {self.blocks}."
            )
        self.bijectors = nnx.List(bijectors)
        self.event_shape = (dim,)
        self.context_shape = find_context_shape(*(b.context_shape for b in bijectors))

    @property
    def is_triangular(self) -> bool:
        in_order = all(list(block) == sorted(block) for block in self.blocks)
        return in_order and all(bijector.is_triangular for bijector in self.bijectors)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._map([b.forward_and_log_det for b in self.bijectors], x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._map([b.inverse_and_log_det for b in self.bijectors], y, context)

    def _map(self, maps, x, context):
        rest = sorted(set(range(len(x))) - {i for block in self.blocks for i in block})
        parts, log_det = [x[np.array(rest, int)]], jnp.zeros((), jnp.float32)
        for f, block in zip(maps, self.blocks, strict=True):
            part, term = f(x[np.array(block)], context)
            parts.append(part)
            log_det += term
        order = np.argsort([*rest, *(i for block in self.blocks for i in block)])
        return jnp.concatenate(parts)[order], log_det


def _check_blocks(blocks: Any) -> tuple[tuple[int, ...], ...]:
    """Return blocks of coordinates as whole numbers, or raise `ValueError`."""
    try:
        return tuple(tuple(index(i) for i in block) for block in blocks)
    except TypeError:
        raise ValueError(f"Expected blocks, [[0, 2], [1]] say, got {blocks!r}.") from None
