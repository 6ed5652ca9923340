"""Names of classes and functions in files, and the classes and functions of names.

A name from afflow omits the module, as in `afflow:Affine`. Files therefore stay readable if a class
moves to another module. Any other name includes the module, as in `jax.nn:relu`.
"""

import enum
import pkgutil
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Named = TypeVar("Named", bound=Callable)

_PACKAGES = ("afflow", "diffrax", "equinox", "flax.nnx", "jax", "jaxlib", "optimistix")
_CONVERTED = "afflow.adapters.converted"  # parts of models from other libraries
_FUNCTIONS = {"jax.nn": jax.nn, "jax.numpy": jnp, "jax.lax": jax.lax}
# The modules whose functions models hold. If a file could name any function, loading it and using
# the model could delete files of the reader, for example.
_OF_JAX = ("lax", "nn", "numpy", "scipy")
_ROOMS = (
    *("bijectors", "conditionals", "conditioners", "core", "distributions", "models", "nets"),
    *("univariates", "adapters.converted"),
)
_PURE = (
    *(f"{home}.{name}" for home in ("jax", "jax._src") for name in _OF_JAX),
    *(f"afflow.{room}" for room in _ROOMS),
    *("diffrax", "flax.nnx", "optimistix"),
)
_ON_FILES = (jnp.load, jnp.fromfile)
RENAMED = {"Sequential": "FullPasses"}
"""Maps names of classes in archives of earlier versions to the present names."""

_registered: dict[str, Any] = {}


def saveable(named: Named) -> Named:
    """Register a class or function as a decorator; models that hold it can then be saved.

    The file holds only the module and the name. The class or function must therefore exist and be
    registered when the file is loaded.

    Args:
        named: a class or a function, defined at the top of a module.

    Raises:
        ValueError: for a lambda, or a class or function defined within a call.

    Example:
        >>> import afflow, jax
        >>> def swish_squared(x):
        ...     return jax.nn.swish(x) ** 2
        >>> activation = afflow.saveable(swish_squared)
    """
    name = f"{named.__module__}:{named.__qualname__}"
    if "<" in name:
        raise ValueError(f"Expected a class or function with a name, got {name}: use def.")
    _registered[name] = named
    return named


def name_of(value: Any) -> str | None:
    """Return the name under which `named` finds a class or function, or `None`."""
    for module, namespace in _FUNCTIONS.items():
        if getattr(namespace, getattr(value, "__name__", ""), None) is value:
            return f"{module}:{value.__name__}"
    module = str(getattr(value, "__module__", ""))
    home = "afflow" if module.partition(".")[0] == "afflow" else module
    name = f"{home}:{getattr(value, '__qualname__', '')}"
    try:
        return name if named(name) is value else None
    except ValueError:
        return None


def named(name: str) -> Any:
    """Return the class or function of a name.

    Raises:
        ValueError: if it does not exist, or is neither registered nor one that models hold.
    """
    if name in _registered:
        return _registered[name]
    module, _, path = name.partition(":")
    if not _is_allowed(module):
        raise ValueError(
            f"Expected a class or function of {', '.join(_PACKAGES)} or a registered one, got "
            f"{name}: import its module and register it with afflow.saveable first."
        )
    first, *rest = path.split(".")
    try:
        if module.partition(".")[0] == "afflow":
            found = _is_of_afflow()[RENAMED.get(first, first)]
        else:
            found = getattr(import_module(module), first)
        for part in rest:
            if isinstance(found, ModuleType):
                raise ValueError(f"Expected a class or function by its module, got {name}.")
            found = getattr(found, part)
    except (ImportError, AttributeError, KeyError) as error:
        raise ValueError(
            f"Expected to find {name}, got {error}: is another version here?"
        ) from error
    home = str(getattr(found, "__module__", ""))
    is_known = _is_allowed(home) if isinstance(found, type) else _is_pure(found, home)
    if not is_known or isinstance(found, enum.Enum):
        raise ValueError(f"Expected a class or function of models, got {name}.")
    return found


@cache
def _is_of_afflow() -> dict[str, Any]:
    """Return the classes and functions that the modules of afflow define, by name.

    Archives of format 1 also name the module, which is ignored. Adapters that import other
    libraries are left out: no saved model holds one.
    """
    afflow = import_module("afflow")
    found: dict[str, Any] = {}
    for info in pkgutil.walk_packages(afflow.__path__, "afflow."):
        if info.name.startswith("afflow.adapters.") and not info.name.startswith(_CONVERTED):
            continue
        for name, value in vars(import_module(info.name)).items():
            if getattr(value, "__module__", "") == info.name:
                found[name] = value
    return found


def _is_allowed(module: str) -> bool:
    return _is_within(module, _PACKAGES)


def _is_pure(function: Any, module: str) -> bool:
    """Return whether a function of a module only computes, without files."""
    return _is_within(module, _PURE) and not any(function is other for other in _ON_FILES)


def _is_within(module: str, packages: Iterable[str]) -> bool:
    return any(f"{module}.".startswith(f"{package}.") for package in packages)
