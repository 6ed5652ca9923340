"""Checks of arguments before anything is compiled. Errors name the expected and the given value."""

import inspect
import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

import jax
from flax import nnx

# For each library with an adapter of parts: its name in errors, and the adapter.
_LIBRARIES = {
    "distrax": ("distrax", "from_distrax"),
    "numpyro": ("NumPyro", "from_numpyro"),
    "tensorflow_probability": ("TFP", "from_distrax"),
}


def check_instance(name: str, value: Any, kind: Any) -> None:
    """Raise `ValueError` unless `value` is an instance of `kind`, a class or a tuple of classes.

    If a part of another library stands for a `Bijector` or a `Distribution`, the error message
    names the adapter.
    """
    if isinstance(value, kind):
        return
    kinds = kind if isinstance(kind, tuple) else (kind,)
    names = [kind.__name__ for kind in kinds]
    got = _describe_foreign(value) if {"Bijector", "Distribution"} & {*names} else None
    called = getattr(value, "__name__", None)
    got = got or (f"{called} itself: call it, {called}(...)" if called else f"{value!r}")
    raise ValueError(f"Expected a {' or '.join(names)} as {name}, got {got}.")


def _describe_foreign(value: Any) -> str | None:
    """Describe a part of another library and name the adapter, or return `None`.

    The classes of the part name the library, so that no library is imported.
    """
    for cls in type(value).__mro__:
        if found := _LIBRARIES.get(cls.__module__.partition(".")[0]):
            library, adapter = found
            part = f"a {library} {type(value).__name__}"
            return f"{part}: wrap it by afflow.adapters.{adapter}(...)"
    return None


def check_instances(name: str, values: Any, kind: Any) -> None:
    """Raise `ValueError` unless `values` is a sequence of instances of `kind`."""
    if not isinstance(values, Iterable) or isinstance(values, str | kind):
        raise ValueError(f"Expected a list of {kind.__name__}s as {name}, got {values!r}.")
    for value in values:
        check_instance(name, value, kind)


def check_methods(name: str, value: Any, *methods: str) -> None:
    """Raise `ValueError` unless `value` has the methods of a flow with these names."""
    if not all(callable(getattr(value, method, None)) for method in methods):
        raise ValueError(f"Expected a flow with {' and '.join(methods)} as {name}, got {value!r}.")


def check_callable(name: str, value: Any, example: str, num: int | None = None) -> None:
    """Raise `ValueError` unless `value` is a function, of `num` arguments if `num` is given.

    The error message suggests `example`.
    """
    if not callable(value):
        raise ValueError(f"Expected a function as {name}, {example} say, got {value!r}.")
    if num is not None and not _can_take(value, num):
        raise ValueError(
            f"Expected a function of {num} arguments as {name}, {example} say, got {value!r} "
            f"with the arguments {inspect.signature(value)}."
        )


def _can_take(function: Callable, num: int) -> bool:
    """Return whether a function accepts `num` positional arguments, or has no signature."""
    try:
        inspect.signature(function).bind(*range(num))
    except TypeError:
        return False
    except ValueError:  # the function has no signature
        return True
    return True


def check_number(
    name: str, value: Any, is_good: Callable[[Any], bool] = lambda _: True, what: str = ""
) -> None:
    """Raise `ValueError` unless `value` is a real number with `is_good(value)`.

    `what` describes the condition `is_good` in the error message.
    """
    is_number = (isinstance(value, Real) and not isinstance(value, bool)) or (
        getattr(value, "shape", None) == () and hasattr(value, "__float__")
    )
    if not is_number or not is_good(value):
        raise ValueError(f"Expected a number {name}{what and ' '}{what}, got {value!r}.")


def check_positive(**values: Any) -> None:
    """Raise `ValueError` unless every value is a finite number above zero."""
    for name, value in values.items():
        check_number(name, value, lambda number: 0 < number < math.inf, "> 0 and finite")


def draw_key(rngs: Any) -> jax.Array:
    """Return the next key of the stream `params`, or raise `ValueError` without `nnx.Rngs`."""
    check_rngs(rngs)
    return rngs.params()


def check_rngs(rngs: Any) -> None:
    """Raise `ValueError` unless `rngs` is an `nnx.Rngs`."""
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"Expected rngs, nnx.Rngs(0) say, got {rngs!r}.")
