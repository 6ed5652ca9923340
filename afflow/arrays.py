"""The door for data: any array, table or list becomes an array of native real numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def real_array(name: str, value: Any) -> Any:
    """Return a JAX or NumPy array of real numbers from an array, a table or a list.

    JAX arrays, and NumPy arrays of native numbers (memory-mapped ones too), come back as they
    are. Other byte orders become native, long doubles and objects become float64, and missing
    entries of a table become NaN.

    Args:
        name: the argument, for errors.
        value: the data.

    Raises:
        ValueError: for complex numbers, text, dates, structured arrays and ragged lists.
    """
    array = value if isinstance(value, jax.Array | np.ndarray) else _from_table(name, value)
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
    if array.dtype == object:
        array = _from_objects(name, array)
    if not (array.dtype.kind in "biuf" or jnp.issubdtype(array.dtype, jnp.floating)):
        raise ValueError(
            f"Expected numbers in {name}, got {array.dtype}: map categories to 0, 1, 2, ... or "
            f"one-hot, and dates to numbers."
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def double(name: str, value: Any) -> np.ndarray:
    """Return data as float64 on the host, where statistics of them keep their digits."""
    return np.asarray(real_array(name, value), np.float64)


def cast(name: str, value: np.ndarray, *, is_scale: bool = False) -> jax.Array:
    """Return finite numbers as a JAX array; `ValueError` where its float type has no such number.

    The float type is JAX's default: float32, or float64 under `jax_enable_x64`. A scale must
    not become zero; any other number may.
    """
    with np.errstate(over="ignore"):
        array = jnp.asarray(value, float)
    lost = np.isinf(array) & np.isfinite(value)
    if is_scale:
        lost |= np.asarray(array) == 0
    if lost.any():
        raise ValueError(
            f"Expected {name} within the range of {array.dtype}, got {value[lost].ravel()[0]:.6g}: "
            f"choose another unit, or set jax_enable_x64."
        )
    return array


def _from_table(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"Expected {name} as one array of numbers: {error}") from error


def _from_objects(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array of Python numbers as float64, missing entries as NaN."""
    try:
        return np.array([_number(entry) for entry in array.flat], np.float64).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected numbers in {name}, got entries that are none ({error}): drop these columns, "
            f"or map categories to 0, 1, 2, ... or one-hot."
        ) from error


def _number(entry: Any) -> float:
    # A missing entry of a table is no number and not even equal to itself.
    if entry is None or type(entry).__name__ in ("NAType", "NaTType"):
        return np.nan
    return float(entry)
