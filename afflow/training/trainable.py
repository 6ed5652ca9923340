"""The choice of parameters to train, by their paths in the model."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from afflow.bijectors.compose import Repeat

Trainable = str | Sequence[str] | Callable[[str], bool]


def paths_of(model: Any) -> list[str]:
    """Return the path of every parameter array, as in the argument `trainable` of `fit`.

    A path joins the attributes from the model to the array with dots. Each copy in a `Repeat` has a
    separate path, with the number of the copy after `layers`.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> flow = afflow.maf(2, num_layers=3, hidden=(4,), rngs=nnx.Rngs(0))
        >>> afflow.training.paths_of(flow)[0]
        'bijector.bijectors.0.layers.0.bijectors.0.b'
    """
    return [name for names in _name_parts(model).values() for name in names]


def make_mask(model: Any, trainable: Trainable) -> dict[tuple, Any]:
    """Return, for each parameter's path in the module, whether the parameter is trained.

    For a stacked parameter of a `Repeat` the value is an array of booleans, one per copy.

    Raises:
        ValueError: if no parameter is chosen, or a pattern matches nothing.
    """
    names = _name_parts(model)
    chosen = _choice(model, trainable)
    mask = {path: [bool(chosen(name)) for name in each] for path, each in names.items()}
    if not any(map(any, mask.values())):
        raise ValueError(f"Expected trainable to choose some of {_some(names)}, got none.")
    return {path: np.array(flags) if len(flags) > 1 else flags[0] for path, flags in mask.items()}


def restrict(trainable: Trainable | None, outer: Any, inner: Any) -> Trainable | None:
    """Return the choice `trainable` of parameters of `outer`, as a choice by paths of `inner`.

    The two models have the same parameters in the same order.
    """
    if trainable is None:
        return None
    chosen = _choice(outer, trainable)
    names = dict(zip(paths_of(inner), paths_of(outer), strict=True))
    return lambda name: chosen(names[name])


class MaskedState(NamedTuple):
    """The mask of trained copies of stacked parameters, and the state of the optimizer."""

    mask: Any
    inner: Any


class MaskedUpdate(NamedTuple):
    """The update of an optimizer that leaves masked copies of stacked parameters unchanged."""

    update: Callable

    def __call__(self, updates: Any, state: MaskedState, params: Any = None) -> tuple[Any, Any]:
        """Return the updates, zero outside the mask, and the new state."""
        updates, inner = self.update(_masked(updates, state.mask), state.inner, params)
        return _masked(updates, state.mask), MaskedState(state.mask, inner)


def masked(
    optimizer: optax.GradientTransformation, mask: dict[tuple, Any]
) -> optax.GradientTransformation:
    """Return an optimizer that leaves copies of stacked parameters outside the mask unchanged."""
    if all(np.all(flag) or not np.any(flag) for flag in mask.values()):
        return optimizer

    def init(params: Any) -> MaskedState:
        flags = {path: mask[path] for path, _ in nnx.to_flat_state(params)}
        return MaskedState(tuple(map(jnp.asarray, flags.values())), optimizer.init(params))

    update: Any = MaskedUpdate(optimizer.update)
    return optax.GradientTransformation(init, update)


def _masked(tree: Any, mask: tuple) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    kept = [
        jnp.where(flag.reshape(flag.shape + (1,) * (leaf.ndim - flag.ndim)), leaf, 0)
        for leaf, flag in zip(leaves, mask, strict=True)
    ]
    return jax.tree.unflatten(structure, kept)


def _name_parts(model: Any) -> dict[tuple, list[str]]:
    """Return the names of each parameter by its path in the module, one name per copy."""
    stacks = [path for path, part in nnx.iter_graph(model) if isinstance(part, Repeat)]
    found = {}
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        depth = min((len(s) + 1 for s in stacks if path[: len(s)] == s), default=None)
        if depth is None:
            found[path] = [_dotted(path)]
        else:
            copies = range(len(variable[...]))
            found[path] = [_dotted((*path[:depth], i, *path[depth:])) for i in copies]
    return found


def _dotted(path: tuple) -> str:
    return ".".join(map(str, path))


def _choice(model: Any, trainable: Trainable) -> Callable[[str], bool]:
    return trainable if callable(trainable) else _matching(trainable, _name_parts(model))


def _matching(trainable: str | Sequence[str], names: dict[tuple, list[str]]) -> Callable:
    patterns = [trainable] if isinstance(trainable, str) else list(trainable)
    every = [name for each in names.values() for name in each]
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in every):
            raise ValueError(
                f"Expected trainable to name parts of {_some(names)}, got {pattern!r}, which "
                f"matches nothing: see afflow.training.paths_of(model)."
            )
    return lambda name: any(_matches(name, pattern) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    """Return whether a pattern matches a path, or the path of an enclosing module."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _some(names: dict[tuple, list[str]]) -> str:
    every = [name for each in names.values() for name in each]
    return ", ".join(every[:4]) + (", ..." if len(every) > 4 else "")
