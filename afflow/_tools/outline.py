"""The printed outline of a module: its parts and their sizes, not their weights."""

import inspect
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from afflow._tools.names import name_of, named

_LONGEST = 40


class ConstructorSignature:
    """The signature of a constructor, which the metaclass of Flax hides from `help`.

    A class without a constructor takes no arguments.
    """

    def __get__(self, instance: Any, cls: type) -> inspect.Signature:
        if instance is not None:
            raise AttributeError("An instance is called by the signature of its __call__.")
        if cls.__init__ is object.__init__:  # its signature would be (*args, **kwargs)
            return inspect.Signature()
        signature = inspect.signature(cls.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


class Outlined:
    """A module that prints as its outline, and that can be pickled."""

    __signature__ = ConstructorSignature()

    def __repr__(self) -> str:
        return outline(self)

    __str__ = __repr__

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes, with functions as names: pickle cannot save functions of JAX."""
        return {key: _Named.of(value) for key, value in vars(self).items()}

    def __deepcopy__(self, memo: dict) -> Any:
        """Return the module with copies of its arrays, and with the same functions and settings."""
        return jax.tree.map(copy, self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Set the attributes that `__getstate__` returned."""
        found = {k: v.value if isinstance(v, _Named) else v for k, v in state.items()}
        vars(self).update(found)


@dataclass(frozen=True)
class _Named:
    """A function, represented by its name."""

    name: str

    @staticmethod
    def of(value: Any) -> Any:
        """Return a function with a name as `_Named`, and any other value unchanged."""
        is_function = callable(value) and not isinstance(value, type | nnx.Module)
        name = name_of(value) if is_function else None
        return value if name is None else _Named(name)

    @property
    def value(self) -> Any:
        """The function."""
        return named(self.name)


def outline(module: Any) -> str:
    """Return the tree of a module's parts: class, settings, number of parameters.

    A setting is a static attribute that is not empty, false or 0.0. It is omitted if the enclosing
    part has an equal attribute of this name.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> afflow.made(2, hidden=(8,), rngs=nnx.Rngs(0))
        Flow(event_shape=(2,)): 52 parameters
          base: Normal()
          bijector: Chain(): 52 parameters
            0: MaskedAutoregressive(solver=Incremental()): 52 parameters
              conditioner: MADE(activation=tanh, hidden=(8,), num_params=2): 52 parameters
              univariate: Affine(context_shape=(2,), max_log_scale=7.0)
    """
    return "\n".join(_format_lines(module, {}))


def _format_lines(module: nnx.Module, around: dict[str, Any]) -> Iterator[str]:
    public = {name: value for name, value in sorted(vars(module).items()) if name[0] != "_"}
    settings = [
        f"{name}={_shorten(value)}"
        for name, value in public.items()
        if not _is_node(value) and not _is_empty(value) and value != around.get(name)
    ]
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    total = f": {size:,} parameters" if size else ""
    yield f"{type(module).__name__}({', '.join(settings)}){total}"
    for name, part in _iterate_parts(public):
        first, *rest = _format_lines(part, public)
        yield f"  {name}: {first}"
        yield from (f"  {line}" for line in rest)


def _is_node(value: Any) -> bool:
    return isinstance(value, nnx.Pytree | nnx.Variable | jax.Array | np.ndarray)


def _is_empty(value: Any) -> bool:
    """Return whether a setting is absent or off, such as a dropout of 0.0."""
    return value is None or (isinstance(value, bool | float | tuple) and not value)


def _iterate_parts(public: dict[str, Any]) -> Iterator[tuple[str, nnx.Module]]:
    """Return the modules among attributes with their names; in a list, the name is the index."""
    for name, value in public.items():
        items = enumerate(value) if isinstance(value, nnx.List) else [(name, value)]
        yield from ((str(place), part) for place, part in items if isinstance(part, nnx.Module))


def _shorten(value: Any) -> str:
    text = getattr(value, "__name__", repr(value))
    return text if len(text) <= _LONGEST else "..."
