"""Symbols: whole numbers from 0 to a largest value."""

from typing import Any

import numpy as np

from afflow._tools.arrays import real_array


def choose_type(num_values: int) -> np.dtype:
    """Return the smallest unsigned type that holds the symbols `0..num_values - 1`."""
    return np.min_scalar_type(num_values - 1)


def check_symbols(symbols: Any, num_values: int) -> None:
    """Raise `ValueError` unless an array holds integers from 0 to `num_values - 1`."""
    if symbols.dtype.kind not in "iu" and symbols.size:
        raise ValueError(
            f"Expected symbols of an integer type, got {symbols.dtype}: convert them by "
            f"astype(int)."
        )
    outside = np.flatnonzero((symbols < 0) | (symbols >= num_values))
    if outside.size:
        raise ValueError(
            f"Expected symbols from 0 to {num_values - 1}, got {symbols.ravel()[outside[0]]} at "
            f"position {outside[0]}: decode with the codec that made them."
        )


def read_sequence(symbols: Any, num_values: int) -> np.ndarray:
    """Return a sequence of symbols `(N,)` as a NumPy array of integers.

    Raises:
        ValueError: for an array of other than one axis, for numbers that are not of an integer
            type, and for integers outside `0..num_values - 1`.
    """
    array = np.asarray(real_array("symbols", symbols))
    if array.ndim != 1:
        raise ValueError(f"Expected symbols.shape (N,), got {array.shape}: decode each row.")
    check_symbols(array, num_values)
    return array.astype(np.int64)
