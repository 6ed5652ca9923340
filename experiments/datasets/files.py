"""Functions that all recipes share: finding files, splitting and standardising rows."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

Folder = str | Path | None
TENTH = 0.1


class Split(NamedTuple):
    """The rows for training, for choosing a model, and for the reported score: arrays `(N, D)`."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def find(folder: Folder, names: Sequence[str], source: str) -> Path:
    """Return the path of the first of `names` that exists in the data folder.

    Args:
        folder: the data folder; by default the environment variable `AFFLOW_DATA`.
        names: paths within the folder, the preferred path first.
        source: where to get the file, for the error.

    Raises:
        ValueError: without a folder.
        FileNotFoundError: if none of the files exists.
    """
    folder = folder or os.environ.get("AFFLOW_DATA")
    if not folder:
        raise ValueError(
            f"Expected a data folder with {names[0]}, got none: pass --data-dir or set "
            f"AFFLOW_DATA. The file is from {source}."
        )
    paths = [Path(folder).expanduser() / name for name in names]
    for path in paths:
        if path.exists():
            return path
    raise FileNotFoundError(
        f"Expected {' or '.join(names)} in {folder}, got no such file: "
        f"get it from {source}, and put it there, as {paths[0]}."
    )


def hold_out(rows: np.ndarray) -> Split:
    """Return the last tenth as test set, and the last tenth of the rest as validation set."""
    rest, test = cut_tail(rows)
    return Split(*cut_tail(rest), test)


def cut_tail(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows without their last tenth, and the last tenth."""
    kept = len(rows) - int(TENTH * len(rows))
    return rows[:kept], rows[kept:]


def standardized(split: Split, rows: np.ndarray, ddof: int = 0) -> Split:
    """Return z-scores by the mean and standard deviation of `rows`, in float32."""
    mean, std = rows.mean(0), rows.std(0, ddof=ddof)
    return Split(*(((part - mean) / std).astype(np.float32) for part in split))


def checked(name: str, split: Split, sizes: Sequence[int], dim: int) -> Split:
    """Return `split` if its parts have the published sizes `(N, dim)`, or raise `ValueError`."""
    expected = [(size, dim) for size in sizes]
    got = [part.shape for part in split]
    if got != expected:
        raise ValueError(
            f"Expected {name} with train, validation and test of {expected}, got {got}: "
            f"the file is not the published one, or is not complete."
        )
    return split


def uncorrelated(rows: np.ndarray, most: float = 0.98) -> np.ndarray:
    """Return the rows without columns that repeat a later column.

    While two columns have a correlation above `most`, the first of these columns is dropped.
    """
    while (pairs := np.argwhere(np.triu(np.corrcoef(rows.T), 1) > most)).size:
        rows = np.delete(rows, pairs[0, 0], axis=1)
    return rows


def without_repeats(train: np.ndarray, *others: np.ndarray, most: int = 5) -> list[np.ndarray]:
    """Return arrays without the columns whose smallest value occurs more than `most` times.

    The values are counted in `train`. The published recipes count the smallest value, not the most
    frequent one.
    """
    keep = (train == train.min(0)).sum(0) <= most
    return [rows[:, keep] for rows in (train, *others)]
