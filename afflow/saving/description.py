"""A module as a tree of JSON with its arrays separate, and back: no code, no pickle.

Numbers, strings, `None` and booleans stand for themselves. Every other value is an object with one
key, the kind of the value.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial

from afflow._tools.arrays import is_key, make_native
from afflow._tools.names import name_of, named

Json = Any
Arrays = list[np.ndarray]


class Writer:
    """A callable that describes values in JSON and collects their arrays in `arrays`."""

    def __init__(self):
        self.arrays: Arrays = []
        self.numbers: dict[int, int] = {}  # from the id of a module or variable to its number

    def __call__(self, value: Any, where: str) -> Json:
        """Return `value` in JSON; `where` is its place in the model, for errors."""
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float) and math.isfinite(value):
            return value
        if id(value) in self.numbers:
            return {"again": self.numbers[id(value)]}
        for kind, (is_one, write, _) in _KINDS.items():
            if is_one(value):
                return {kind: write(self, value, where)}
        raise ValueError(
            f"Expected something that can be saved at {where}, got {value!r}: take a function of "
            f"jax.nn, or define it with def or class and register it with afflow.saveable."
        )

    def number(self, value: Any) -> None:
        """Assign the next number to a module or variable, for references `{"again": number}`."""
        self.numbers[id(value)] = len(self.numbers)

    def all(self, values: Any, where: str) -> list[Json]:
        """Return a sequence as a list in JSON."""
        return [self(value, f"{where}[{i}]") for i, value in enumerate(values)]

    def fields(self, fields: dict[str, Any], where: str) -> dict[str, Json]:
        """Return a dictionary of named values in JSON."""
        return {name: self(value, f"{where}.{name}") for name, value in fields.items()}


class Reader:
    """A callable that rebuilds values from their JSON and the arrays."""

    def __init__(self, arrays: Arrays):
        self.arrays = arrays
        self.numbered: list[Any] = []

    def __call__(self, json: Json) -> Any:
        """Return the value that `json`, from a `Writer`, describes."""
        if not isinstance(json, dict):
            return json
        ((kind, content),) = json.items()
        if kind == "again":
            return self.numbered[content]
        return _KINDS[kind][2](self, content)

    def fields(self, fields: dict[str, Json]) -> dict[str, Any]:
        """Return a dictionary of named values from their JSON."""
        return {name: self(value) for name, value in fields.items()}


def _write_module(write: Writer, module: nnx.Module, where: str) -> Json:
    write.number(module)
    fields = {k: v for k, v in vars(module).items() if not k.startswith("_pytree__")}
    json = {"class": _write_class_name(module, where), "fields": write.fields(fields, where)}
    empty = [k for k, v in fields.items() if v is None and module._pytree__nodes.get(k)]
    return json | ({"empty": empty} if empty else {})  # None that stands for a part


def _read_module(read: Reader, json: Json) -> nnx.Module:
    cls = _read_class(json, nnx.Pytree)
    module = _make_blank(cls)
    read.numbered.append(module)
    empty = json.get("empty", ())
    for name, value in (_add_absent(cls) | read.fields(json["fields"])).items():
        setattr(module, name, nnx.data(value) if name in empty else value)
    return module


def _add_absent(cls: type) -> dict[str, Any]:
    """Return the values of settings that older archives lack, by name."""
    return dict(getattr(cls, "ABSENT", {}))


def _make_blank(cls: type) -> Any:
    """Return an instance of `cls` without running its constructor."""
    module = _make_without_constructor(cls)()
    object.__setattr__(module, "__class__", cls)
    return module


@cache
def _make_without_constructor(cls: type) -> type:
    return type(cls)(cls.__name__, (cls,), {"__init__": lambda self: None})


def _write_variable(write: Writer, variable: nnx.Variable, where: str) -> Json:
    value = variable.get_value()
    usual = type(variable)(jnp.zeros(())).get_metadata()
    extra = {k: v for k, v in variable.get_metadata().items() if usual.get(k, usual) != v}
    metadata = write.fields(extra, where)
    json = {"class": _write_class_name(variable, where), "value": write(value, where)}
    write.number(variable)
    return json | ({"metadata": metadata} if extra else {})


def _read_variable(read: Reader, json: Json) -> nnx.Variable:
    metadata = read.fields(json.get("metadata", {}))
    variable = _read_class(json, nnx.Variable)(read(json["value"]), **metadata)
    read.numbered.append(variable)
    return variable


def _write_object(write: Writer, value: Any, where: str) -> Json:
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {"class": _write_class_name(value, where), "fields": write.fields(fields, where)}


def _read_object(read: Reader, json: Json) -> Any:
    cls = _read_class(json, object)
    value = object.__new__(cls)
    for name, field in (_add_absent(cls) | read.fields(json["fields"])).items():
        object.__setattr__(value, name, field)
    return value


def _write_array(write: Writer, value: Any, where: str) -> Json:
    array = make_native(np.asarray(value))
    is_foreign = _is_foreign(array.dtype)
    write.arrays.append(np.atleast_1d(array).view(np.uint8) if is_foreign else array)
    home = "numpy" if isinstance(value, np.ndarray) else "jax"
    number, dtype, shape = len(write.arrays) - 1, array.dtype.name, list(array.shape)
    return {"number": number, "dtype": dtype, "shape": shape, "home": home}


def _read_array(read: Reader, json: Json) -> Any:
    array, dtype = read.arrays[json["number"]], jnp.dtype(json["dtype"])
    array = array.view(dtype) if _is_foreign(dtype) else array
    shape = tuple(json.get("shape", array.shape))  # older archives hold no shapes
    array = array.reshape(()) if not shape and array.shape == (1,) else array
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"Expected {dtype} of shape {shape}, got {array.dtype} of {array.shape}.")
    return array if json["home"] == "numpy" else jax.device_put(array)


def _is_foreign(dtype: Any) -> bool:
    """Return whether NumPy's file format does not know a type, such as bfloat16."""
    return dtype.kind == "V" or dtype.name not in np.sctypeDict


def _write_key(write: Writer, key: jax.Array, where: str) -> Json:
    impl = str(jax.random.key_impl(key))
    return {"impl": impl, "data": write(jax.random.key_data(key), where)}


def _read_key(read: Reader, json: Json) -> jax.Array:
    return jax.random.wrap_key_data(read(json["data"]), impl=json["impl"])


def _write_partial(write: Writer, value: partial, where: str) -> Json:
    parts = write(value.func, where), write.all(value.args, where)
    return [*parts, write.fields(value.keywords, where)]


def _read_partial(read: Reader, json: Json, kind: Callable) -> Any:
    function, args, keywords = json
    return kind(read(function), *map(read, args), **read.fields(keywords))


def _is_scalar_type(value: Any) -> bool:
    return isinstance(value, type(jnp.float32)) or (
        isinstance(value, type) and issubclass(value, np.generic)
    )


def _write_scalar_type(write: Writer, value: Any, where: str) -> Json:
    return [np.dtype(value).name, "numpy" if isinstance(value, type) else "jax"]


def _read_scalar_type(read: Reader, json: Json) -> Any:
    name, home = json
    return jnp.dtype(name).type if home == "numpy" else getattr(jnp, name)


def _write_pairs(write: Writer, value: dict, where: str) -> Json:
    return [[write(k, where), write(v, f"{where}[{k!r}]")] for k, v in value.items()]


def _write_class_name(value: Any, where: str) -> str:
    cls = type(value)
    name = name_of(cls)
    if name is None:
        mend = "register it with afflow.saveable"
        if cls.__module__.startswith("afflow.adapters."):  # a wrapped object of another library
            mend = "build the model in code, and save its arrays by afflow.saving.save_parameters"
        raise ValueError(f"Expected a known class at {where}, got {cls.__name__}: {mend}.")
    return name


def _read_class(json: Json, base: type) -> type:
    found = named(json["class"])
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"Expected a class of {base.__name__}s, got {json['class']}.")
    return found


def _is_a(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


def _is_exactly(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


# For each kind: a test of values, a function that writes, and one that reads. The first test that
# accepts a value decides.
_KINDS: dict[str, tuple[Callable, Callable, Callable]] = {
    "variable": (_is_a(nnx.Variable), _write_variable, _read_variable),
    "modules": (
        _is_exactly(nnx.List),
        lambda write, value, where: write.all(value, where),
        lambda read, json: nnx.List(map(read, json)),
    ),
    "module": (_is_a(nnx.Pytree), _write_module, _read_module),
    "key": (is_key, _write_key, _read_key),
    "array": (_is_a(jax.Array, np.ndarray), _write_array, _read_array),
    "scalar": (
        _is_a(np.generic),
        lambda write, value, where: write(np.asarray(value), where),
        lambda read, json: read(json)[()],
    ),
    "float": (
        _is_a(float),
        lambda write, value, where: repr(value),
        lambda read, json: float(json),
    ),
    "tuple": (
        _is_exactly(tuple),
        lambda write, value, where: write.all(value, where),
        lambda read, json: tuple(map(read, json)),
    ),
    "list": (
        _is_exactly(list),
        lambda write, value, where: write.all(value, where),
        lambda read, json: list(map(read, json)),
    ),
    "dict": (
        _is_exactly(dict),
        _write_pairs,
        lambda read, json: {read(k): read(v) for k, v in json},
    ),
    "dtype": (
        _is_a(np.dtype),
        lambda write, value, where: value.name,
        lambda read, json: jnp.dtype(json),
    ),
    "scalar type": (_is_scalar_type, _write_scalar_type, _read_scalar_type),
    "Partial": (_is_a(Partial), _write_partial, partial(_read_partial, kind=Partial)),
    "partial": (_is_a(partial), _write_partial, partial(_read_partial, kind=partial)),
    "name": (
        lambda value: callable(value) and name_of(value) is not None,
        lambda write, value, where: name_of(value),
        lambda read, json: named(json),
    ),
    "object": (dataclasses.is_dataclass, _write_object, _read_object),
}
