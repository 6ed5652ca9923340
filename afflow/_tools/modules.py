"""Copies of modules with other attributes or other parts."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
from flax import nnx

Module = TypeVar("Module")


def copy_module(module: Module, **attributes: Any) -> Module:
    """Return a copy of a module, in new variables around its arrays, with other attributes."""
    copied = jax.tree.map(lambda leaf: leaf, module)
    for name, value in attributes.items():
        setattr(copied, name, value)
    return copied


def replace_modules(module: Module, kind: type, make: Callable[[Any], Any]) -> Module:
    """Return a copy of a module in which `make(part)` stands for each part of class `kind`.

    Parts of the result of `make` are replaced too.

    Args:
        module: the module, which is not changed.
        kind: the class of the parts to replace; the module itself may be one.
        make: returns the replacement of a part.
    """
    return _replace(copy_module(module), kind, make)


def _replace(module: Any, kind: type, make: Callable[[Any], Any]) -> Any:
    module = make(module) if isinstance(module, kind) else module
    for name, part in list(nnx.iter_children(module)):
        if isinstance(part, nnx.Pytree):
            put: Any = module.__setitem__ if isinstance(module, nnx.List) else module.__setattr__
            put(name, _replace(part, kind, make))
    return module
