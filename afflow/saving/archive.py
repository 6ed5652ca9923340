"""The file of a model: its architecture as readable JSON, and its arrays."""

import io
import json
import os
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from afflow._tools.files import open_to_replace
from afflow.saving.description import Reader, Writer

_FORMAT = 2  # format 1 also named the module of each class of afflow


def save(model: Any, path: str | Path, *, card: Mapping[str, Any] | None = None) -> None:
    """Save the architecture and the arrays of a model to one file.

    The file is a zip archive. It holds `model.json`, the tree of modules with their static
    attributes, and the arrays in NumPy's format. It holds no pickle, and does not depend on the
    model's device. The file appears complete or not at all.

    Args:
        model: a `Flow`, any other module, or a pytree of tuples, lists and dicts of modules.
        path: the file to write.
        card: facts for the reader of the file, such as the data and the test log-likelihood, by
            name: strings, numbers, lists and dictionaries. `afflow.saving.describe` prints them.

    Raises:
        ValueError: for a value that has no name in the file: a lambda, or a class or function of
            the caller that is not registered with `saveable`. Also for a card of other values.

    Example:
        >>> import afflow, jax, pathlib, tempfile
        >>> from flax import nnx
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "flow.zip"
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> afflow.save(flow, path)
        >>> x = jax.numpy.ones(2)
        >>> (afflow.load(path).log_prob(x) == flow.log_prob(x)).item()
        True
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"Expected a model and a path in this order, got {path!r} as path.")
    write = Writer()
    description = {
        "format": _FORMAT,
        "versions": {name: version(name) for name in ("afflow", "jax", "flax")},
        "card": _make_card(card or {}),
        "model": write(model, type(model).__name__),
    }
    with open_to_replace(path, "wb") as file:
        _write(file, description, write.arrays)


def load(path: str | Path) -> Any:
    """Load a model that `save` saved.

    Arrays go to the default device. The file holds no code. It names classes and functions only,
    which must belong to afflow or the libraries that afflow uses, or be registered with `saveable`.
    Arrays of 64 bits keep their type only under `jax_enable_x64`.

    Args:
        path: the file.

    Raises:
        ValueError: for a file that is damaged, not from `save`, or from a later version, or that
            names an unknown class or function.
        FileNotFoundError: if the file does not exist.
    """
    return _build(path, *_read(path))


def _build(path: str | Path, description: dict, arrays: list[np.ndarray]) -> Any:
    """Return the model that a file describes. Raise `ValueError` if the file is damaged."""
    try:
        return Reader(arrays)(description["model"])
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"Expected a whole file of afflow.save, got {path}: {error}.") from error


def describe(path: str | Path) -> str:
    r"""Return a text on a saved model: versions, card, and the outline with its parameters.

    `python -m afflow describe FILE` prints it.

    Args:
        path: a file of `save`.

    Raises:
        ValueError: as `load` does.
        FileNotFoundError: if the file does not exist.

    Example:
        >>> import afflow, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "flow.zip"
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> afflow.save(flow, path, card={"data": "two moons", "test nats": -1.5})
        >>> print(afflow.saving.describe(path).partition("\n\n")[2])
        data: two moons
        test nats: -1.5
        <BLANKLINE>
        Flow(event_shape=(2,))
          base: Normal()
          bijector: Permutation(order=(1, 0))
    """
    description, arrays = _read(path)
    versions = description.get("versions", {})
    title = ", ".join(f"{name} {number}" for name, number in versions.items())
    card = "\n".join(f"{name}: {value}" for name, value in description.get("card", {}).items())
    return "\n\n".join(
        filter(None, [f"Saved by {title}.", card, repr(_build(path, description, arrays))])
    )


def _make_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card of plain values of JSON. Raise `ValueError` for other values."""
    try:
        return json.loads(json.dumps(dict(card), allow_nan=False, default=_to_number))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a card of strings, finite numbers, lists and dicts by name, got {card!r}."
        ) from error


def _to_number(value: Any) -> Any:
    """Return an array of one number as a number of Python."""
    return np.asarray(value).item()


def _read(path: str | Path) -> tuple[dict, list[np.ndarray]]:
    """Return the description and the arrays of a file.

    Raises:
        ValueError: if the file is damaged, or from a later version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            description = json.loads(archive.read("model.json"))
            arrays = [_read_array(archive, i) for i in range(len(archive.namelist()) - 1)]
        if not isinstance(description, dict):
            raise ValueError("model.json holds no description")
    except FileNotFoundError:
        raise
    except Exception as error:  # a flipped bit may raise anything
        raise ValueError(f"Expected a whole file of afflow.save, got {path}: {error}.") from error
    if description.get("format") not in range(1, _FORMAT + 1):
        raise ValueError(
            f"Expected format {_FORMAT} or an earlier one, got {description.get('format')} in "
            f"{path}: load it with a later afflow."
        )
    return description, arrays


def _write(file: Any, description: dict, arrays: list[np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.json", json.dumps(description, indent=1, allow_nan=False))
        for number, array in enumerate(arrays):
            with archive.open(f"{number}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _read_array(archive: zipfile.ZipFile, number: int) -> np.ndarray:
    content = io.BytesIO(archive.read(f"{number}.npy"))
    return np.lib.format.read_array(content, allow_pickle=False)
