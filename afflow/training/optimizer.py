"""The optimizer of a training run."""

from collections.abc import Callable
from functools import lru_cache

import optax

MakeOptimizer = Callable[[int], optax.GradientTransformation]
Optimizer = optax.GradientTransformation | MakeOptimizer


def optimizer_for(
    num_steps: int, optimizer: Optimizer | None, learning_rate: float
) -> optax.GradientTransformation:
    """Return the optimizer given, made for `num_steps` if it is a function, or the default."""
    if optimizer is None:
        return default_optimizer(learning_rate, num_steps)
    made = optimizer(num_steps) if callable(optimizer) else optimizer
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise ValueError(f"Expected an optax optimizer or what makes one, got {made!r}.")
    return made


@lru_cache
def default_optimizer(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """Return Adam on clipped gradients with a cosine decay to zero over `num_steps`."""
    if not learning_rate > 0:
        raise ValueError(f"Expected learning_rate > 0, got {learning_rate}.")
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))
