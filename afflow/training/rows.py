"""Rows of data: checked, split, and shuffled into minibatches."""

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_number
from afflow._tools.arrays import make_native, real_array, round_to_device, to_double

_FEW_EFFECTIVE = 0.1  # as a fraction of the rows
_NUMBERS = 2**22  # numbers that are read from a file at a time


class Rows(NamedTuple):
    """Data `(N, *event_shape)`, contexts `(N, *context_shape)` and weights `(N,)`, or `None`."""

    x: Any
    context: Any = None
    weights: Any = None

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.x)

    @property
    def is_on_host(self) -> bool:
        """Whether the rows stay in a file until they are needed."""
        return isinstance(self.x, np.memmap)

    def at(self, index: Any) -> "Rows":
        """Return the rows at `index`, as native numbers."""
        return jax.tree.map(lambda a: make_native(a[index]), self)


def make_rows(*parts: Any) -> Rows:
    """Return data, and contexts and weights if given, as `Rows` of numbers.

    Raises:
        ValueError: for more than three parts, or parts that are not numbers.
    """
    if len(parts) > len(Rows._fields):
        raise ValueError(f"Expected x, (x, context) or (x, context, weights), got {len(parts)}.")
    pairs = zip(Rows._fields, parts, strict=False)
    return Rows(*(part if part is None else real_array(name, part) for name, part in pairs))


def checked(rows: Rows, name: str, *, signed_weights: bool = False, missing: bool = False) -> Rows:
    """Return the rows on the device, or unchanged if they are in a file.

    Args:
        rows: the rows.
        name: the name of the rows in error messages.
        signed_weights: allow negative weights.
        missing: allow NaN in the data.

    Raises:
        ValueError: for no rows, unequal lengths, values that are not finite, or unusable weights.
    """
    x, context, weights = rows
    if np.ndim(x) == 0:
        raise ValueError(f"Expected rows (N, *event_shape) in {name}, got one number.")
    if len(x) == 0:
        raise ValueError(f"Expected at least one row in {name}, got none.")
    if context is not None and len(context) != len(x):
        raise ValueError(
            f"Expected one row of context for each of {name}: {len(x)}, got {len(context)}."
        )
    if weights is not None:
        rows = rows._replace(weights=check_weights(weights, len(x), signed=signed_weights))
    check_finite(rows, name, missing=missing)
    return rows if rows.is_on_host else jax.tree.map(jnp.asarray, rows)


def split(rows: Rows, validation: Any) -> tuple[Rows, Rows | None]:
    """Return the training rows and the held-out rows.

    `validation` is a fraction of `rows`, or the held-out data. The held-out rows are `None` for the
    fraction 0.
    """
    if isinstance(validation, Rows):
        return rows, validation
    if isinstance(validation, tuple):
        return rows, checked(make_rows(*validation), "validation x")
    if np.ndim(validation):
        return rows, checked(make_rows(validation), "validation x")
    size = count_held_out(rows.size, validation)
    order = shuffle(rows.size)
    train, held_out = rows.at(order[size:]), rows.at(order[:size])
    check_some_weight(train.weights, held_out.weights if size else None)
    return train, held_out if size else None


def shuffle(size: int) -> np.ndarray:
    """Return row numbers in an order that depends on `size` only.

    A continued training therefore holds out the same rows, whatever its key.
    """
    return np.random.default_rng(size).permutation(size)


def check_some_weight(*shares: Any) -> None:
    """Raise `ValueError` if the weights of a share of the rows have no positive sum."""
    for share in shares:
        if share is None:
            continue
        total = np.asarray(share, np.float64).sum()
        if not total > 0:
            raise ValueError(
                f"Expected weights with a positive sum in the rows to train on and in those held "
                f"out, got {total:.3g} in {len(share)} rows of one of "
                f"them: give more rows, or held-out data as validation=(x, context, weights)."
            )


def count_held_out(size: int, validation: Any) -> int:
    """Return the number of rows to hold out of `size` rows; 0 if `validation` is data.

    Raises:
        ValueError: for a fraction outside [0, 1), or one that leaves no training rows.
    """
    if isinstance(validation, tuple) or np.ndim(validation):
        return 0
    what = "in [0, 1), or held-out data"
    check_number("validation", validation, lambda share: 0 <= share < 1, what)
    held_out = max(1, round(validation * size)) if validation else 0
    if held_out >= size:
        raise ValueError(
            f"Expected more rows to train on than validation={validation} leaves of {size}: "
            f"give more data, or validation=0."
        )
    return held_out


class DeviceShuffle(NamedTuple):
    """Minibatches of row numbers, in a new order for each epoch."""

    num_rows: int
    batch_size: int
    key: jax.Array

    def __call__(self, epoch: int, start: int, size: int) -> Iterator[jax.Array]:
        """Yield the minibatches of an epoch from step `start` on, stacked by `size`."""
        num_steps = self.num_rows // self.batch_size
        key = jax.random.fold_in(self.key, epoch)
        order = jax.random.permutation(key, self.num_rows)[: num_steps * self.batch_size]
        order = order.reshape(num_steps, self.batch_size)
        for first in range(start, num_steps, size):
            yield order[first : first + size]


def check_weights(weights: Any, size: int, *, signed: bool = False) -> np.ndarray:
    """Return weights `(size,)` scaled to mean one.

    The division is in float64: a sum of float32 numbers may overflow, and tiny ones become zero.

    Raises:
        ValueError: for another shape, weights that are not finite, negative weights unless
            `signed`, or a sum that is not positive.
    """
    values = to_double("weights", weights)
    if (
        values.shape != (size,)
        or not np.isfinite(values).all()
        or ((values < 0).any() and not signed)
        or not (values / max(np.abs(values).max(initial=0.0), 1e-300)).sum() > 0
    ):
        raise ValueError(
            f"Expected weights ({size},), finite, none negative (or signed_weights=True) and with "
            f"a positive sum, got {values.shape} from {values.min(initial=0.0)} to "
            f"{values.max(initial=0.0)}."
        )
    values = values / np.abs(values).max()
    effective = values.sum() ** 2 / np.square(values).sum()
    if (values < 0).any() and effective < _FEW_EFFECTIVE * size:
        warnings.warn(
            f"Signed weights cancel most of the rows: {size} rows are worth {effective:.0f} "
            f"without weights. Give more rows, or resample them to positive weights.",
            stacklevel=5,
        )
    return (values / values.mean()).astype(jax.dtypes.canonicalize_dtype(float))


def check_finite(rows: Rows, name: str, *, missing: bool = False) -> None:
    """Raise `ValueError` unless the float type holds the data and the contexts of `rows`.

    Args:
        rows: the rows.
        name: the name of the data in error messages.
        missing: allow NaN in the data.
    """
    for part, value in zip((name, "context"), rows[:2], strict=True):
        if value is not None:
            _check_finite(part, value, missing=missing and part == name)


def _check_finite(name, value, *, missing):
    bad = [_find_bad_rows(value, rows, missing=missing) for rows in cut(len(value), value)]
    bad = np.concatenate(bad)
    if len(bad):
        raise ValueError(
            f"Expected finite {name}, got {len(bad)} of {len(value)} rows with NaN, infinity or "
            f"a number beyond the float type, the first at index {bad[0]}: drop or impute them, "
            f"choose another unit, or give missing=True for a model that has marginals."
        )


def _find_bad_rows(value, rows, *, missing):
    """Return the numbers of the rows with unusable values, among the `rows` of a part."""
    part = round_to_device(make_native(np.asarray(value[rows])))
    good = np.isfinite(part) | (np.isnan(part) if missing else False)
    return rows.start + np.flatnonzero(~good.reshape(len(part), -1).all(1))


def cut(size: int, value: Any) -> list[slice]:
    """Return slices of `size` rows of an array, each of as many rows as are read at a time."""
    step = max(_NUMBERS // max(math.prod(np.shape(value)[1:]), 1), 1)
    return [slice(start, start + step) for start in range(0, size, step)]
