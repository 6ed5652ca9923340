"""Initial weights."""

import math

import jax
from flax import nnx

from afflow._tools.arguments import draw_key


def draw_normal(rngs: nnx.Rngs, variance: float, *shape: int) -> nnx.Param:
    """Return normal weights of this shape, with mean zero and this variance."""
    return nnx.Param(math.sqrt(variance) * jax.random.normal(draw_key(rngs), shape))
