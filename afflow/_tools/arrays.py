"""Conversion of data: any array, table or list becomes an array of native real numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike


def is_key(value: Any) -> bool:
    """Return whether a value is an array of typed PRNG keys."""
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def real_array(name: str, value: Any) -> Any:
    """Return a JAX or NumPy array of real numbers from an array, a table or a list.

    JAX arrays, NumPy arrays of native numbers and memory-mapped arrays of numbers are returned
    unchanged. Other byte orders become native, long doubles and objects become float64, and missing
    or masked entries become NaN.

    Args:
        name: the name of the argument, for errors.
        value: the data.

    Raises:
        ValueError: for complex numbers, text, dates, structured arrays and ragged lists.
    """
    array = value if isinstance(value, jax.Array | np.ndarray) else _convert_table(name, value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"Expected real numbers in {name}, got {array.dtype}: stack the real and the "
            f"imaginary part as two coordinates."
        )
    if isinstance(array, jax.Array):
        return array
    if array.dtype.names:
        raise ValueError(
            f"Expected one array of numbers as {name}, got a structured array with the fields "
            f"{', '.join(array.dtype.names)}: convert it by "
            f"numpy.lib.recfunctions.structured_to_unstructured."
        )
    if isinstance(array, np.ma.MaskedArray):
        array = np.where(np.ma.getmaskarray(array), np.nan, array.data)
    if array.dtype == object:
        array = _convert_objects(name, array)
    if not (array.dtype.kind in "biuf" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise ValueError(
            f"Expected numbers in {name}, got {array.dtype}: map categories to 0, 1, 2, ... or "
            f"one-hot, and dates to numbers."
        )
    return array if isinstance(array, np.memmap) else make_native(array)


def make_native(array: Any) -> Any:
    """Return an array of numbers in native byte order, with long doubles as float64."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def to_device(name: str, value: Any, dtype: DTypeLike | None = None) -> jax.Array:
    """Return data as a JAX array, of the type `dtype` if given.

    Raises:
        ValueError: if `real_array` refuses the data, or if a finite number on the host becomes
            infinite in JAX's float type.
    """
    array = real_array(name, value)
    if isinstance(array, jax.Array) and dtype is None:
        return array  # `jnp.asarray` would be the longest part of the Python work of a call
    if isinstance(array, np.ndarray):
        exact, array = array, round_to_device(array, dtype)
        _check_range(name, exact, _find_lost(exact, array), array.dtype)
    return jnp.asarray(array, dtype)


def round_to_device(array: np.ndarray, dtype: DTypeLike | None = None) -> np.ndarray:
    """Round numbers to the type of JAX that holds `dtype`, without a warning of overflow."""
    with np.errstate(over="ignore"):
        return array.astype(jax.dtypes.canonicalize_dtype(dtype or array.dtype), copy=False)


def to_double(name: str, value: Any) -> np.ndarray:
    """Return data as float64 on the host, where statistics of the data keep their digits."""
    return np.asarray(real_array(name, value), np.float64)


def cast(name: str, value: np.ndarray, *, is_scale: bool = False) -> jax.Array:
    """Return finite numbers as a JAX array of the default float type.

    The float type is float32, or float64 under `jax_enable_x64`. A scale must be a normal number of
    this type, since compiled programs flush smaller numbers to zero; any other number may vanish.

    Raises:
        ValueError: if the float type cannot represent one of the numbers.
    """
    with np.errstate(over="ignore"):
        array = jnp.asarray(value, float)
    lost = np.isinf(array) & np.isfinite(value)
    if is_scale:
        lost |= np.abs(np.asarray(array)) < jnp.finfo(array.dtype).tiny
    _check_range(name, value, lost, array.dtype)
    return array


def _find_lost(exact: np.ndarray, rounded: np.ndarray) -> np.ndarray:
    """Return which finite numbers are infinite or wrapped around after rounding to another type."""
    if exact.dtype == rounded.dtype:
        return np.zeros(1, bool)
    if exact.dtype.kind in "iu" and rounded.dtype.kind in "iu":
        info = np.iinfo(rounded.dtype)
        return (exact < info.min) | (exact > info.max)
    return np.isinf(rounded) & np.isfinite(exact)


def _check_range(name: str, value: np.ndarray, lost: np.ndarray, dtype: DTypeLike) -> None:
    """Raise `ValueError` if the mask `lost` marks a number that the type `dtype` does not hold."""
    if np.any(lost):
        raise ValueError(
            f"Expected {name} within the range of {dtype}, got {value[lost].ravel()[0]:.6g}: "
            f"choose another unit, or set jax_enable_x64."
        )


def _convert_table(name: str, value: Any) -> jax.Array | np.ndarray:
    try:
        if isinstance(value, nnx.Variable) or _is_of_jax_arrays(value):
            return jnp.asarray(value)
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"Expected {name} as one array of numbers: {error}") from error


def _is_of_jax_arrays(value: Any) -> bool:
    is_list = isinstance(value, list | tuple)
    return is_list and any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))


def _convert_objects(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of Python numbers as float64, with NaN for missing entries."""
    if array.ndim == 0:
        raise ValueError(
            f"Expected an array as {name}, got {array.item()!r}: for data from an iterator use "
            f"afflow.training.Stream."
        )
    try:
        return np.array([_number(entry) for entry in array.flat], np.float64).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected numbers in {name}, got entries that are none ({error}): drop these columns, "
            f"or map categories to 0, 1, 2, ... or one-hot."
        ) from error


def _number(entry: Any) -> float:
    if isinstance(entry, str | bytes):  # `float` would convert text such as a postcode
        raise TypeError(f"the text {entry!r}")
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return np.nan
    return float(entry)
