"""Dropout in the networks of a flow, for training."""

import math
from itertools import count
from typing import Any, TypeVar

import jax
from flax import nnx

from afflow._tools.modules import copy_module, replace_modules
from afflow.bijectors.compose import Repeat
from afflow.bijectors.solvers import Jacobi
from afflow.core.conditioner import Conditioner

Module = TypeVar("Module", bound=nnx.Pytree)


class Noisy(Conditioner):
    """A conditioner whose every call draws the noise of training from the same key.

    The outputs are therefore those of one causal network, and decoding by full passes inverts it.
    """

    def __init__(self, conditioner: Conditioner, key: jax.Array):
        self.conditioner = conditioner
        self.key = nnx.data(key)  # a traced key would not be taken for an array
        self.event_shape = conditioner.event_shape
        self.context_shape = conditioner.context_shape
        self.num_params = conditioner.num_params

    @property
    def has_kernel(self) -> bool:
        return self.conditioner.has_kernel

    def __call__(self, x, context=None):
        return self.conditioner.noisy(self.key, x, context)

    def with_temperature(self, temperature: float) -> "Noisy":
        """Return the conditioner at another temperature of attention, with the same noise."""
        net: Any = self.conditioner
        return copy_module(self, conditioner=net.with_temperature(temperature))

    def decode(self, emit, inputs, context=None, *, kernel=None):
        """Decode by full passes. Neither steps nor a kernel draw the noise."""
        return Jacobi().run(self, emit, inputs, context)


def has_dropout(module: Any) -> bool:
    """Return whether a conditioner in a module has dropout."""
    return any(map(_drops, jax.tree.leaves(module, is_leaf=_drops)))


def remove_dropout(module: Module) -> Module:
    """Return the module whose conditioners have no dropout: itself if none has any."""
    if not has_dropout(module):
        return module
    return replace_modules(module, Conditioner, lambda part: part.without_noise())


def add_noise(module: Module, key: jax.Array, copies: tuple[int, ...] = ()) -> Module:
    """Return the module whose conditioners draw the noise of training.

    Args:
        module: a bijector, or a model around bijectors, which is not changed.
        key: each conditioner draws from a separate child of this key.
        copies: the first axes of all arrays of the module, over the copies of a `Repeat`.
    """
    numbers = count()

    def replace(part):
        if not _holds_noise(part):
            return part
        child = jax.random.fold_in(key, next(numbers))
        if isinstance(part, Repeat):
            return copy_module(part, layers=add_noise(part.layers, child, (*copies, part.n)))
        return Noisy(part, jax.random.split(child, math.prod(copies)).reshape(copies))

    return jax.tree.map(replace, module, is_leaf=_holds_noise)


def _drops(part: Any) -> bool:
    return isinstance(part, Conditioner) and part.is_noisy


def _holds_noise(part: Any) -> bool:
    return isinstance(part, Repeat) or _drops(part)
