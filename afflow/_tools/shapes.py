"""Checks of shapes and sizes."""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np

Shape = tuple[int, ...]


def check_size(name: str, size: int, least: int = 1) -> None:
    """Raise `ValueError` unless `size` is a whole number of at least `least`."""
    if not isinstance(size, Integral) or int(size) < least:
        raise ValueError(f"Expected a whole number {name} >= {least}, got {size!r}.")


def check_shape(name: str, shape: int | Shape, least: int = 1) -> Shape:
    """Convert a shape or a length to a tuple. Raise `ValueError` for a size below `least`."""
    sizes: tuple[Any, ...]
    try:
        sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
    except TypeError:  # a scalar array, such as a key
        sizes = (shape,)
    for size in sizes:
        check_size(name, size, least)
    return tuple(int(size) for size in sizes)


def check_image(shape: Shape) -> tuple[int, int, int]:
    """Return `(H, W, C)` from `(H, W)` or `(H, W, C)`, or raise `ValueError`."""
    sizes = check_shape("shape", shape)
    if len(sizes) not in (2, 3):
        raise ValueError(f"Expected shape (H, W) or (H, W, C), got {sizes}.")
    height, width, *colours = sizes
    return height, width, colours[0] if colours else 1


def find_context_shape(*shapes: Shape | None) -> Shape | None:
    """Return the context shape of all parts that take a context, or `None` if no part does.

    Raises:
        ValueError: if the parts take contexts of different shapes.
    """
    given = {shape for shape in shapes if shape is not None}
    if len(given) > 1:
        raise ValueError(f"Expected one context_shape in all parts, got {sorted(given)}.")
    return given.pop() if given else None


def check_sizes(
    dim: int, num_params: int, hidden: tuple[int, ...], context_dim: int, features: int = 1
):
    """Raise `ValueError` if a size of a conditioner is out of range."""
    for name, size in {"dim": dim, "num_params": num_params, "features": features}.items():
        check_size(name, size)
    check_widths(hidden, context_dim)


def check_widths(hidden: Any, context_dim: int = 0, *, least: int = 0) -> None:
    """Raise `ValueError` if a hidden width or the length of the context is out of range.

    Args:
        hidden: the widths.
        context_dim: the length of the context.
        least: the least number of widths.
    """
    if not isinstance(hidden, Sequence | np.ndarray):
        raise ValueError(f"Expected hidden as a tuple of widths, got {hidden}: write ({hidden},).")
    if len(hidden) < least:
        raise ValueError(f"Expected at least one width as hidden, got {hidden}.")
    for layer, width in enumerate(hidden):
        check_size(f"hidden[{layer}]", width)
    check_size("context_dim", context_dim, least=0)


def check_permutation(name: str, order: Any, dim: int | None = None) -> tuple[int, ...]:
    """Return a permutation of `0..dim - 1` as whole numbers, of any length for `dim=None`.

    Raises:
        ValueError: for anything else.
    """
    places = np.asarray(order)
    length = places.size if dim is None else dim
    if places.ndim != 1 or length == 0 or sorted(places.tolist()) != list(range(length)):
        raise ValueError(f"Expected a permutation of 0..{length - 1} as {name}, got {order}.")
    return tuple(int(i) for i in places)
