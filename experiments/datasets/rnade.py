"""The small real-valued sets of RNADE, scored by ten folds."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.files import Folder, find, uncorrelated

UCI = "https://archive.ics.uci.edu/dataset/{number}"
FOLDS = 10


class Source(NamedTuple):
    """The paths of a set's file, its origin, the columns to use, and the expected shape."""

    names: tuple[str, ...]
    origin: str
    columns: list[int]
    shape: tuple[int, int]


RNADE = {
    "red_wine": Source(
        ("rnade_uci/winequality-red.csv",), UCI.format(number=186), [*range(11)], (1_599, 11)
    ),
    "parkinsons": Source(
        ("rnade_uci/parkinsons_updrs.data",), UCI.format(number=189), [*range(3, 22)], (5_875, 15)
    ),
    "boston": Source(
        ("rnade_uci/housing.data",),
        "http://lib.stat.cmu.edu/datasets/boston",
        [0, 2, 4, 5, 6, 7, 10, 11, 12, 13],
        (506, 10),
    ),
}


def rnade(name: str, folder: Folder = None) -> np.ndarray:
    """Return the usable columns of a set, as chosen by Uria et al. 2013 (arXiv:1306.0186).

    Discrete attributes are dropped, and then one column of each pair with a correlation above 0.98.
    The paper does not say which four attributes of Boston are discrete; here they are ZN, CHAS, RAD
    and TAX.

    Args:
        name: one of `RNADE`.
        folder: the data folder, see `find`.

    Returns:
        Rows `(N, D)` in their original units; `fold` splits and standardises them.

    Raises:
        ValueError: for an unknown name, or a file of another shape.
    """
    if name not in RNADE:
        raise ValueError(f"Expected one of {sorted(RNADE)}, got {name!r}.")
    source = RNADE[name]
    rows = _table(find(folder, source.names, source.origin))
    rows = uncorrelated(rows[:, source.columns])
    if rows.shape != source.shape:
        raise ValueError(f"Expected {name} of shape {source.shape}, got {rows.shape}.")
    return rows


def fold(x: np.ndarray, number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows and test rows of one of ten folds, z-scored by the training rows.

    Args:
        x: rows `(N, D)`.
        number: the number of the test fold, from 0 to 9.
        seed: the seed of the assignment of rows to folds.
    """
    if not 0 <= number < FOLDS:
        raise ValueError(f"Expected a fold from 0 to {FOLDS - 1}, got {number}.")
    dealt = np.empty(len(x), int)
    dealt[np.random.default_rng(seed).permutation(len(x))] = np.arange(len(x)) % FOLDS
    train, test = x[dealt != number], x[dealt == number]
    mean, std = train.mean(0), train.std(0)
    return (train - mean) / std, (test - mean) / std


def _table(path: Path) -> np.ndarray:
    """Return the numbers of a text with semicolons, commas or spaces, and an optional header."""
    lines = path.read_text().replace(";", " ").replace(",", " ").splitlines()
    rows = [line.split() for line in lines if line.strip()]
    return np.array(rows if _numeric(rows[0]) else rows[1:], float)


def _numeric(words: list[str]) -> bool:
    try:
        [float(word) for word in words]
    except ValueError:
        return False
    return True
