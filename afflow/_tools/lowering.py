"""Choices that differ between CPUs and GPUs, for the same mathematics."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

_CONFIG: Any = jax.config  # type checkers do not know its options


@contextmanager
def use_float32_products() -> Iterator[None]:
    """Trace products of float32 in float32, unless the user has chosen another precision.

    By default JAX rounds the operands to the 10 bits of TF32 on recent GPUs, and to the 7 bits of
    bfloat16 on TPUs. The user chooses by `jax.default_matmul_precision` or the option
    `jax_default_matmul_precision`.
    """
    if _CONFIG.jax_default_matmul_precision is not None:
        yield
        return
    with jax.default_matmul_precision("float32"):
        yield


@contextmanager
def lower_for(arrays: Sequence[Any]) -> Iterator[None]:
    """Trace for the CPU if the user has put `arrays` on the CPU of a machine with a GPU."""
    devices = _find_devices(arrays) if on_gpu() else []
    if not devices or any(device.platform != "cpu" for device in devices):
        yield
        return
    with jax.default_device(devices[0]):
        yield


def _find_devices(arrays: Sequence[Any]) -> list[Any]:
    """Return the devices of the arrays that the user has put on a device."""
    here = [a for a in arrays if isinstance(a, jax.Array) and not isinstance(a, Tracer)]
    return [device for a in here if a.committed for device in a.devices()]


def on_gpu() -> bool:
    """Return whether computations run on a GPU by default.

    On a GPU, launches cost more than arithmetic. One dense product is faster than blocks that skip
    half of the work, and unrolled layers are faster than a loop.
    """
    return _find_platform() in ("gpu", "cuda", "rocm")


def on_cpu() -> bool:
    """Return whether computations run on a CPU by default."""
    return _find_platform() == "cpu"


def _find_platform() -> str:
    chosen = _CONFIG.jax_default_device
    return getattr(chosen, "platform", chosen) or jax.default_backend()


def multiply(kernel: jax.Array, h: jax.Array) -> jax.Array:
    """Return `kernel @ h`. A kernel of 16 bits sums its products in float32.

    A kernel of one column is multiplied elementwise. In a batch, XLA would lay out the matrix
    product with the events last, and the next product would be half as fast on a CPU.

    On a GPU a vector stands on the left of the product. A batch of vectors is then the first axis
    of the result, and XLA adds the bias within the product. Products of float32 use
    `choose_products`. On an H200 they are faster than plain float32, and compile in a third of
    the time (`experiments/accelerator.py`).
    """
    options: dict[str, Any] = {}
    if kernel.dtype.itemsize == 2:
        h, options = h.astype(kernel.dtype), {"preferred_element_type": jnp.float32}
    elif on_gpu() and kernel.dtype == h.dtype == jnp.float32 and get_shared_memory():
        options = {"precision": choose_products()}
    if h.shape == kernel.shape[1:] == (1,):
        kernel, h = (a.astype(options.get("preferred_element_type", a.dtype)) for a in (kernel, h))
        return kernel[:, 0] * h
    if h.ndim == 1 and on_gpu():
        return jnp.matmul(h, kernel.T, **options)
    return jnp.matmul(kernel, h, **options)


def choose_products() -> jax.lax.DotAlgorithmPreset:
    """Return the algorithm for products of float32 on tensor cores.

    By default it is three products in TF32, as accurate as float32. If the user has chosen another
    precision for JAX's products, it applies here too.
    """
    presets, chosen = jax.lax.DotAlgorithmPreset, _CONFIG.jax_default_matmul_precision
    if chosen in (None, "float32"):
        return presets.TF32_TF32_F32_X3
    if chosen in ("highest", "F32_F32_F32"):
        return presets.F32_F32_F32
    return getattr(presets, chosen) if chosen.isupper() else presets.TF32_TF32_F32


def get_shared_memory() -> int:
    """Return the shared memory in bytes of a program on an NVIDIA GPU with TF32, else 0.

    The numbers are from table "Technical Specifications per Compute Capability" of the CUDA
    programming guide.
    """
    capability = str(getattr(jax.devices()[0], "compute_capability", ""))
    major, _, minor = capability.partition(".")
    if not major.isdigit() or int(major) < 8:
        return 0
    kibibytes = {"8.0": 163, "8.7": 163, "9": 227, "10": 227, "11": 227}
    return 1024 * kibibytes.get(f"{major}.{minor}", kibibytes.get(major, 99))
