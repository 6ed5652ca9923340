"""The arrays of a model as a file of safetensors, which other libraries read."""

from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_instance
from afflow._tools.arrays import is_key
from afflow._tools.extras import import_extra
from afflow._tools.files import open_to_replace

Arrays = dict[str, jax.Array]
Forms = dict[str, tuple[str, list[int]]]  # the type and the shape of each array
Model = TypeVar("Model", bound=nnx.Module)


def save_parameters(model: nnx.Module, path: str | Path) -> None:
    """Save the arrays of a model in the format safetensors, without its architecture.

    Each array has its path as its name, such as `bijector.bijectors.0.conditioner.kernels.0`. The
    file therefore opens in any library that reads safetensors. `afflow.save` is the format for a
    whole model.

    Args:
        model: a `Flow`, or any other module.
        path: the file to write.

    Raises:
        ImportError: if `safetensors` is missing (extra `safetensors`).

    Example:
        >>> import afflow, pathlib, tempfile
        >>> from flax import nnx
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "flow.safetensors"
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> other = afflow.maf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(1))
        >>> afflow.saving.save_parameters(flow, path)
        >>> same = afflow.saving.load_parameters(other, path)
        >>> x = jax.numpy.ones(2)
        >>> (same.log_prob(x) == flow.log_prob(x)).item()
        True
    """
    check_instance("model", model, nnx.Module)
    content = _serialize(_name_arrays(model))
    with open_to_replace(path, "wb") as file:
        file.write(content)


def load_parameters(model: Model, path: str | Path) -> Model:
    """Return a copy of a model with the arrays in a file of `save_parameters`.

    Args:
        model: a model of the architecture that was saved; it is not changed.
        path: the file.

    Raises:
        ValueError: if the names, shapes or types of the arrays in the file and in the model differ,
            or if the file is damaged.
        ImportError: if `safetensors` is missing (extra `safetensors`).
    """
    check_instance("model", model, nnx.Module)
    library = import_extra("safetensors", "safetensors", "reads the file")
    try:
        views = dict(library.deserialize(Path(path).read_bytes()))
    except library.SafetensorError as error:
        raise ValueError(f"Expected a whole file of safetensors, got {path}: {error}.") from error
    arrays = _name_arrays(model)
    _check_forms(_find_forms(arrays), {n: (v["dtype"], v["shape"]) for n, v in views.items()})
    new = [_read_array(views[name], array) for name, array in arrays.items()]
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.unflatten(jax.tree.structure(state), new))


def _name_arrays(model: nnx.Module) -> Arrays:
    """Return the arrays of a model by their paths, joined with dots, in the order of the state."""
    leaves, _ = jax.tree.flatten_with_path(nnx.to_pure_dict(nnx.state(model)))
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _serialize(arrays: Arrays) -> bytes:
    """Return the content of the file; PRNG keys are stored as integers."""
    tensors = import_extra("safetensors.flax", "safetensors", "writes the file")
    return tensors.save({name: _get_numbers(array) for name, array in arrays.items()})


def _get_numbers(array: jax.Array) -> jax.Array:
    return jax.random.key_data(array) if is_key(array) else array


def _find_forms(arrays: Arrays) -> Forms:
    """Return the types and shapes that a file of the arrays has, from a file of empty arrays."""
    numbers = {name: jax.eval_shape(_get_numbers, array) for name, array in arrays.items()}
    empty = _serialize({name: jnp.zeros(0, form.dtype) for name, form in numbers.items()})
    library = import_extra("safetensors", "safetensors", "reads the file")
    views = dict(library.deserialize(empty))
    return {name: (views[name]["dtype"], list(form.shape)) for name, form in numbers.items()}


def _check_forms(expected: Forms, got: Forms) -> None:
    """Raise `ValueError` unless the names, types and shapes are equal."""
    if names := expected.keys() ^ got.keys():
        raise ValueError(
            f"Expected the arrays of the model, got a file that differs in {min(names)} "
            f"({len(names)} such names): build the model as it was built for the file."
        )
    for name in sorted(expected):
        wanted, found = expected[name], got[name]
        if wanted != found:
            raise ValueError(f"Expected {name} as {list(wanted)}, got {list(found)}.")


def _read_array(view: dict[str, Any], like: jax.Array) -> jax.Array:
    """Return the array of a file in place of `like`, which has its type and shape."""
    if is_key(like):
        data = np.frombuffer(view["data"], np.uint32).reshape(view["shape"])
        return jax.random.wrap_key_data(jnp.array(data), impl=jax.random.key_impl(like))
    return jnp.array(np.frombuffer(view["data"], like.dtype).reshape(like.shape))
