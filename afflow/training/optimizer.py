"""The optimizer of a training run."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from afflow._tools.arguments import check_number
from afflow._tools.shapes import check_size

MakeOptimizer = Callable[[int], optax.GradientTransformation]
Optimizer = optax.GradientTransformation | MakeOptimizer


def make_optimizer(
    num_steps: int,
    optimizer: Optimizer | None,
    learning_rate: float,
    weight_decay: float = 0.0,
    accumulate: int = 1,
) -> optax.GradientTransformation:
    """Return `optimizer`, called with its number of steps if it is a function, or the default.

    With `accumulate` it takes one step for the mean gradient of so many minibatches.

    Raises:
        ValueError: for numbers out of range, or an `optimizer` that is not an optax optimizer.
    """
    check_size("accumulate", accumulate)
    num_steps = -(-num_steps // accumulate)
    made = _make_single(num_steps, optimizer, learning_rate, weight_decay)
    return made if accumulate == 1 else _accumulate(made, accumulate)


def _make_single(
    num_steps: int, optimizer: Optimizer | None, learning_rate: float, weight_decay: float
) -> optax.GradientTransformation:
    """Return the optimizer without accumulation."""
    if optimizer is None:
        check_number("learning_rate", learning_rate, lambda rate: rate > 0, "> 0")
        check_number("weight_decay", weight_decay, lambda decay: decay >= 0, ">= 0")
        return default_optimizer(float(learning_rate), num_steps, float(weight_decay))
    made = optimizer(num_steps) if callable(optimizer) else optimizer
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise ValueError(f"Expected an optax optimizer or what makes one, got {made!r}.")
    return made


def _accumulate(
    optimizer: optax.GradientTransformation, every: int
) -> optax.GradientTransformation:
    """Return an optimizer that takes a step with the mean gradient of `every` minibatches."""
    init = optax.MultiSteps(optimizer, every).init
    return optax.GradientTransformation(init, _make_update(optimizer.update, every))


@lru_cache  # programs that train are compiled once for each update function
def _make_update(update: Any, every: int) -> Any:
    return optax.MultiSteps(
        optax.GradientTransformation(optax.identity().init, update), every
    ).update


def choose_learning_rate(model: Any, x: Any) -> float:
    """Return the learning rate of a model for `N` rows.

    For a flow it is `0.001 (N / 1000)^(1/4)`, at most 0.002. It grows with the square root of the
    default size of a minibatch. The noise in Adam's steps then stays equal (Malladi et al. 2022,
    arXiv:2205.10287). The factor and the limit were chosen on tables and toy densities of 100 to
    16,000 rows, by rows held out of the training sets. For other models it is their attribute
    `learning_rate`, or 0.001 without one.

    Args:
        model: a flow, or any other model.
        x: rows `(N, *event_shape)`, or a `Stream`, for which a flow has the rate 0.001.
    """
    if not _has_rows(model, x):
        return getattr(model, "learning_rate", 1e-3)
    return min(1e-3 * (len(x) / 1000) ** 0.25, 2e-3)


def choose_weight_decay(model: Any, x: Any) -> float:
    """Return the weight decay of a flow for `N` rows in `D` coordinates: `60 D / N`, at most 3.

    Large weights overfit few rows. The factor and the limit were chosen on tables of 1,000 to 5,000
    rows and 11 to 64 columns, by rows held out of the training sets. Models of discrete data get no
    weight decay. They need large weights if one coordinate determines the next.

    Args:
        model: a flow, or any other model.
        x: rows `(N, *event_shape)`, or a `Stream`, for which the result is 0.
    """
    return min(60 * math.prod(np.shape(x)[1:]) / len(x), 3.0) if _has_rows(model, x) else 0.0


def _has_rows(model: Any, x: Any) -> bool:
    """Return whether the model is a flow and `x` its rows, not a `Stream`."""
    return hasattr(model, "bijector") and np.ndim(x) > 0


class DefaultState(NamedTuple):
    """The state of the default optimizer. It holds the settings, so one program serves them all."""

    step: jax.Array
    num_steps: jax.Array
    learning_rate: jax.Array
    weight_decay: jax.Array
    adam: Any


def take_schedule(state: Any, other: Any) -> Any:
    """Return the state of an optimizer with the number of steps of `other`, a state like it."""
    return _map_default(lambda a, b: a._replace(num_steps=b.num_steps), state, other)


def drop_schedule(state: Any) -> Any:
    """Return the state of an optimizer without a number of steps."""
    return _map_default(lambda a: a._replace(num_steps=None), state)


def _map_default(change: Callable[..., DefaultState], *states: Any) -> Any:
    """Change the states of default optimizers, at any place within a state."""

    def is_default(part):
        return isinstance(part, DefaultState)

    def map_part(*parts):
        return change(*parts) if is_default(parts[0]) else parts[0]

    return jax.tree.map(map_part, *states, is_leaf=is_default)


@lru_cache
def default_optimizer(
    learning_rate: float, num_steps: int, weight_decay: float = 0.0
) -> optax.GradientTransformation:
    r"""Return AdamW on clipped gradients with a cosine decay to zero.

    Step $t$ of $T$ has $\tfrac12 (1 + \cos \pi t / T)$ times the initial learning rate. Weight
    decay applies to parameters with `kernel` in their path, Flax's name for the weights of a layer.
    """

    def init(params: Any) -> DefaultState:
        numbers = jnp.zeros((), int), jnp.array(num_steps, float)
        rates = jnp.array(learning_rate, float), jnp.array(weight_decay, float)
        return DefaultState(*numbers, *rates, _ADAM.init(params))

    return optax.GradientTransformation(init, _update)  # pyright: ignore[reportArgumentType]


_ADAM = optax.chain(optax.clip_by_global_norm(5.0), optax.scale_by_adam())


def _update(updates: Any, state: DefaultState, params: Any = None) -> tuple[Any, DefaultState]:
    with jax.numpy_dtype_promotion("standard"):  # optax adds integers to floats
        updates, adam = _ADAM.update(updates, state.adam, params)
    done = jnp.minimum(state.step.astype(state.num_steps.dtype) / state.num_steps, 1.0)
    rate = state.learning_rate * (1 + jnp.cos(jnp.pi * done)) / 2

    def moved(path, update, param):
        wide = update.astype(rate.dtype)
        if _is_kernel(path):
            wide += state.weight_decay * param.astype(rate.dtype)
        return (-rate * wide).astype(param.dtype)

    updates = jax.tree_util.tree_map_with_path(moved, updates, params)
    return updates, state._replace(step=state.step + 1, adam=adam)


def _is_kernel(path: Any) -> bool:
    return "kernel" in jax.tree_util.keystr(path)
