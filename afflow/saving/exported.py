"""Compiled programs of a model, which run without afflow."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export as jax_export

from afflow._tools.extras import import_extra
from afflow._tools.files import open_to_replace

PLATFORMS = "cpu", "cuda", "tpu"


def export(model: Any, path: str | Path, *, platforms: Sequence[str] = PLATFORMS) -> None:
    """Export the density and the sampler of a model as programs in StableHLO, to one file.

    The programs run with JAX alone, for any number `N` of events, and hold the weights:

        programs = zipfile.ZipFile(path)
        log_prob = jax.export.deserialize(bytearray(programs.read("log_prob"))).call
        sample = jax.export.deserialize(bytearray(programs.read("sample"))).call

    `log_prob(x)` maps events `(N, *event_shape)` to log-densities `(N,)` in nats. `sample(keys)`
    maps keys `(N, 2)`, as `jax.random.key_data(jax.random.split(key, N))` makes them, to events
    `(N, *event_shape)`; event `i` is `model.sample(key_i)`. A conditional model takes contexts
    `(N, *context_shape)` as second argument of both. The attribute `mlir_module_serialized` of
    `jax.export.deserialize(...)` is the program for runtimes other than JAX.

    The programs are traced for a CPU, so that they run on each platform: they have no kernels for
    one kind of GPU. Floats have the default type of JAX at the export. A model of named columns
    takes and returns the rows as numbers `(N, D)`, in the order of the columns.

    Args:
        model: a `Flow`, or another model with `log_prob` and `sample`.
        path: the file to write, a zip archive.
        platforms: names of JAX's platforms on which the programs run.

    Raises:
        ValueError: for a model without these methods, or unknown platforms.
        ImportError: if `flatbuffers`, which JAX needs for it, is missing (extra `export`).

    Example:
        >>> import afflow, jax, pathlib, tempfile, zipfile
        >>> from flax import nnx
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "programs.zip"
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> afflow.saving.export(flow, path, platforms=["cpu"])
        >>> program = bytearray(zipfile.ZipFile(path).read("log_prob"))
        >>> jax.export.deserialize(program).call(jax.numpy.ones((5, 2))).shape
        (5,)
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"Expected a model and a path in this order, got {path!r} as path.")
    if isinstance(platforms, str) or not set(platforms) <= {*PLATFORMS, "rocm"}:
        raise ValueError(f"Expected platforms among cpu, cuda, rocm and tpu, got {platforms!r}.")
    import_extra("flatbuffers", "export", "stores exported programs")
    with jax.default_device(jax.devices("cpu")[0]):
        programs = _make_programs(model, platforms)
    with open_to_replace(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        for name, program in programs.items():
            archive.writestr(name, bytes(program.serialize()))


def _make_programs(model: Any, platforms: Sequence[str]) -> dict[str, jax_export.Exported]:
    """Return the programs by name."""
    key = jax.eval_shape(jax.random.key, 0)
    context = _find_context(model)
    event = jax.eval_shape(lambda key, *h: model.sample(key, (), *h), key, *context)
    data = jax.eval_shape(jax.random.key_data, key)

    def sample(data, *context):
        return model.sample(jax.random.wrap_key_data(data), (), *context)

    arguments = {"log_prob": (model.log_prob, event), "sample": (sample, data)}
    return {
        name: jax_export.export(jax.jit(jax.vmap(function)), platforms=tuple(platforms))(
            *_add_axis((argument, *context))
        )
        for name, (function, argument) in arguments.items()
    }


def _find_context(model: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Return the form of one context, or nothing for a model without a context."""
    if not (hasattr(model, "log_prob") and hasattr(model, "sample")):
        raise ValueError(f"Expected a model with log_prob and sample, got {type(model).__name__}.")
    shape = model.context_shape
    return () if shape is None else (jax.ShapeDtypeStruct(shape, jax.numpy.result_type(float)),)


def _add_axis(forms: Sequence[jax.ShapeDtypeStruct]) -> list[jax.ShapeDtypeStruct]:
    """Return forms with a first axis of any length `N` >= 1."""
    (size,) = jax_export.symbolic_shape("N")
    return [jax.ShapeDtypeStruct((size, *form.shape), form.dtype) for form in forms]
