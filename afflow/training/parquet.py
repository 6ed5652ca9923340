"""Minibatches of the rows of Parquet files, which may be larger than the memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from afflow._tools.extras import import_extra
from afflow._tools.shapes import check_size
from afflow.training.stream import Stream


def read_parquet(
    files: str | Path | Sequence[str | Path],
    batch_size: int,
    *,
    columns: Sequence[str] | None = None,
    context: Sequence[str] = (),
    weights: str | None = None,
    num_groups: int = 8,
    seed: int = 0,
) -> Stream:
    """Return minibatches of the rows of Parquet files, for `fit`.

    A Parquet file consists of groups of rows. An epoch visits the groups of all files in a new
    random order, reads `num_groups` of them at a time, and mixes their rows. The memory for this is
    a few times the size of `num_groups` groups, whatever the size of the files. An epoch depends on
    its number and on the seed, so a resumed run sees the same minibatches. Rows that follow each
    other for a reason (days of a year, say) should be shuffled before they are written: mixed are
    only the rows of groups that are read together.

    Args:
        files: one file, or several with the same columns.
        batch_size: the number of rows in a minibatch `B`.
        columns: names of the coordinates of `x` `(B, D)`, in this order. The default is all columns
            of the first file that are neither context nor weights.
        context: names of the coordinates of the context `(B, C)`.
        weights: the name of the column of weights.
        num_groups: the number of groups in memory at a time.
        seed: the seed of the order of rows.

    Returns:
        A `Stream`. Its minibatches are checked for missing and infinite values.

    Raises:
        ValueError: for unknown columns, sizes below one, or fewer rows than a minibatch.
        ImportError: if `pyarrow` is missing (extra `parquet`).

    Example:
        >>> import afflow, pathlib, pyarrow, tempfile
        >>> import pyarrow.parquet as pq
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "rows.parquet"
        >>> rows = np.random.default_rng(0).normal(size=(2, 1000))
        >>> pq.write_table(pyarrow.table({"a": rows[0], "b": rows[1]}), path, row_group_size=100)
        >>> stream = afflow.training.read_parquet(path, 64)
        >>> next(iter(stream.make(0))).shape, stream.num_steps
        ((64, 2), 15)
    """
    check_size("batch_size", batch_size)
    check_size("num_groups", num_groups)
    check_size("seed", seed, least=0)
    paths = list(files) if isinstance(files, Sequence) and not isinstance(files, str) else [files]
    if not paths or not all(isinstance(path, str | Path) for path in paths):
        raise ValueError(f"Expected the paths of one or more Parquet files, got {files!r}.")
    groups, num_rows, names = _find_groups(paths)
    taken = {*context, *([] if weights is None else [weights])}
    chosen = [name for name in names if name not in taken] if columns is None else list(columns)
    if unknown := {*chosen, *taken} - set(names):
        raise ValueError(f"Expected columns among {names}, got {sorted(unknown)}.")
    if num_rows < batch_size:
        raise ValueError(f"Expected at least {batch_size} rows for a minibatch, got {num_rows}.")
    layout = tuple(chosen), tuple(context), weights
    shuffle = _GroupShuffle(tuple(groups), *layout, batch_size, num_groups, seed)
    return Stream(shuffle, num_rows // batch_size)


def _find_groups(paths: list[Any]) -> tuple[list[tuple[str, int]], int, list[str]]:
    """Return the file and number of each group, the number of rows, and the names of columns."""
    groups, num_rows, names = [], 0, []
    for path in map(str, paths):
        file = _open(path)
        names = names or file.schema_arrow.names
        groups += [(path, i) for i in range(file.num_row_groups)]
        num_rows += file.metadata.num_rows
    return groups, num_rows, names


def _open(path: str) -> Any:
    parquet = import_extra("pyarrow.parquet", "parquet", "reads Parquet files")
    return parquet.ParquetFile(path)


@dataclass(frozen=True)
class _GroupShuffle:
    """Minibatches of mixed rows, in a new order for each epoch."""

    groups: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    context: tuple[str, ...]
    weights: str | None
    batch_size: int
    num_groups: int
    seed: int

    @property
    def names(self) -> list[str]:
        """The columns to read, in the order of the numbers of a row."""
        return [*self.columns, *self.context, *([] if self.weights is None else [self.weights])]

    def __call__(self, epoch: int) -> Iterator[Any]:
        """Yield the minibatches of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        open_once = cache(_open)
        rows = np.empty((0, len(self.names)), jax.dtypes.canonicalize_dtype(float))
        order = rng.permutation(len(self.groups))
        for start in range(0, len(order), self.num_groups):
            some = order[start : start + self.num_groups]
            parts = [self._read(open_once, *self.groups[i]) for i in some]
            rows = rng.permutation(np.concatenate([rows, *parts]))
            for first in range(0, len(rows) - self.batch_size + 1, self.batch_size):
                yield self._split(rows[first : first + self.batch_size])
            rows = rows[len(rows) - len(rows) % self.batch_size :]

    def _read(self, open_once: Any, path: str, number: int) -> np.ndarray:
        """Return the rows of a group as floats. Raise `ValueError` for values that are none."""
        table = open_once(path).read_row_group(number, columns=self.names)
        kind = jax.dtypes.canonicalize_dtype(float)
        rows = np.stack([table[name].to_numpy().astype(kind) for name in self.names], -1)
        if not np.isfinite(rows).all():
            name = self.names[np.flatnonzero(~np.isfinite(rows).all(0))[0]]
            raise ValueError(
                f"Expected finite numbers in column {name}, got a missing or infinite value in "
                f"group {number} of {path}: drop the row, or impute it."
            )
        return rows

    def _split(self, rows: np.ndarray) -> Any:
        """Return rows as `x`, `(x, context)` or `(x, context, weights)`."""
        d, c = len(self.columns), len(self.context)
        x, context = rows[:, :d], rows[:, d : d + c] if c else None
        if self.weights is not None:
            return x, context, rows[:, -1]
        return x if context is None else (x, context)
