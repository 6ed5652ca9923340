"""The product of the rows of an event with a matrix, with the rows of a batch in one axis."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

_CONFIG: Any = jax.config  # type checkers do not know its options


def multiply_rows(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `rows @ kernel`, for rows `(..., N)` and a kernel `(N, M)`.

    In a batch, `jax.vmap` would give the product of `(B, T, N)` with the kernel, whose derivative
    with respect to the kernel sums over two axes. On a CPU, XLA transposes an operand of such a
    sum, which takes longer than the sum itself. Here a batch merges its events into `(B T, N)`
    first.

    Within `jax.shard_map` it is the product of JAX, whose derivative with respect to the kernel
    sums over the devices.
    """
    if _is_in_shard_map():
        return rows @ kernel
    dtype = jnp.result_type(rows, kernel)
    flat = rows.astype(dtype).reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    out = _bind(flat, kernel.astype(dtype), precision=_CONFIG.jax_default_matmul_precision)
    return out.reshape(*rows.shape[:-1], kernel.shape[1])


def _is_in_shard_map() -> bool:
    return jax.sharding.AxisType.Manual in jax.sharding.get_abstract_mesh().axis_types


def _multiply(rows, kernel, *, precision):
    """Multiply in the precision that was chosen when the program was traced."""
    return jnp.matmul(rows, kernel, precision=precision)


def _find_shape(rows, kernel, *, precision):
    return ShapedArray((rows.shape[0], kernel.shape[1]), rows.dtype)


def _map(arrays, axes, *, precision):
    """Merge a batch of events into the rows, unless the kernel has the batch, too."""
    rows, kernel = arrays
    if axes[1] is not None:
        return jax.vmap(lambda *pair: _multiply(*pair, precision=precision), axes)(*arrays), 0
    rows = jnp.moveaxis(rows, axes[0], 0)
    size, num, length = rows.shape
    out = _bind(rows.reshape(size * num, length), kernel, precision=precision)
    return out.reshape(size, num, kernel.shape[1]), 0


_PRODUCT = Primitive("multiply_rows")
_bind: Any = _PRODUCT.bind
_PRODUCT.def_impl(jax.jit(_multiply, static_argnames="precision"))
_PRODUCT.def_abstract_eval(_find_shape)
mlir.register_lowering(_PRODUCT, mlir.lower_fun(_multiply, multiple_results=False))
batching.primitive_batchers[_PRODUCT] = _map
ad.defbilinear(
    _PRODUCT,
    lambda out, rows, kernel, **options: _bind(out, kernel.T, **options),
    lambda out, rows, kernel, **options: _bind(rows.T, out, **options),
)
