"""What printing a module shows: its parts and their sizes, not their weights."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

_LONGEST = 40


class Outlined:
    """A module that prints as its outline."""

    def __repr__(self) -> str:
        return outline(self)

    __str__ = __repr__


def outline(module: Any) -> str:
    """Return the tree of a module's parts: class, settings, number of parameters.

    A setting is a static attribute that is not empty, and not that of the part around it.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> afflow.made(2, hidden=(8,), rngs=nnx.Rngs(0))
        Flow(event_shape=(2,)): 52 parameters
          base: Normal()
          bijector: Chain(): 52 parameters
            0: MaskedAutoregressive(solver=Incremental()): 52 parameters
              conditioner: MADE(activation=relu, hidden=(8,), num_params=2): 52 parameters
              univariate: Affine(context_shape=(2,), max_log_scale=7.0)
    """
    return "\n".join(_lines(module, {}))


def _lines(module: nnx.Module, around: dict[str, Any]) -> Iterator[str]:
    public = {name: value for name, value in sorted(vars(module).items()) if name[0] != "_"}
    settings = [
        f"{name}={_short(value)}"
        for name, value in public.items()
        if not _is_node(value) and not _is_empty(value) and value != around.get(name)
    ]
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))
    total = f": {size:,} parameters" if size else ""
    yield f"{type(module).__name__}({', '.join(settings)}){total}"
    for name, part in _parts(public):
        first, *rest = _lines(part, public)
        yield f"  {name}: {first}"
        yield from (f"  {line}" for line in rest)


def _is_node(value: Any) -> bool:
    return isinstance(value, nnx.Pytree | nnx.Variable | jax.Array | np.ndarray)


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, tuple) and not value)


def _parts(public: dict[str, Any]) -> Iterator[tuple[str, nnx.Module]]:
    """Return the modules among attributes, those in lists by their place."""
    for name, value in public.items():
        items = enumerate(value) if isinstance(value, nnx.List) else [(name, value)]
        yield from ((str(place), part) for place, part in items if isinstance(part, nnx.Module))


def _short(value: Any) -> str:
    text = getattr(value, "__name__", repr(value))
    return text if len(text) <= _LONGEST else "..."
