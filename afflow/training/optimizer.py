"""The optimizer of a training run."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import optax

MakeOptimizer = Callable[[int], optax.GradientTransformation]
Optimizer = optax.GradientTransformation | MakeOptimizer


def optimizer_for(
    num_steps: int, optimizer: Optimizer | None, learning_rate: float, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Return the optimizer given, made for `num_steps` if it is a function, or the default."""
    if optimizer is None:
        return default_optimizer(learning_rate, num_steps, weight_decay)
    made = optimizer(num_steps) if callable(optimizer) else optimizer
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise ValueError(f"Expected an optax optimizer or what makes one, got {made!r}.")
    return made


def usual_weight_decay(num_rows: int, num_coordinates: int) -> float:
    """Return the weight decay for data of `N` rows in `D` coordinates: `60 D / N`, at most 3.

    Few rows are overfitted by large weights. The factor and the limit were chosen on tables of
    1,000 to 5,000 rows and 11 to 64 columns, by rows held out of their training sets.
    """
    return min(60 * num_coordinates / num_rows, 3.0)


@lru_cache
def default_optimizer(
    learning_rate: float, num_steps: int, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    """Return AdamW on clipped gradients with a cosine decay to zero over `num_steps`.

    Weight decay shrinks the `kernel`s of networks, as Flax names them.
    """
    if not learning_rate > 0:
        raise ValueError(f"Expected learning_rate > 0, got {learning_rate}.")
    if not weight_decay >= 0:
        raise ValueError(f"Expected weight_decay >= 0, got {weight_decay}.")
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
    adam = optax.adamw(schedule, weight_decay=weight_decay, mask=_kernels)
    return optax.chain(optax.clip_by_global_norm(5.0), adam)


def _kernels(params: Any) -> Any:
    """Return whether each parameter is the kernel of a layer."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "kernel" in jax.tree_util.keystr(path), params
    )
