"""HEPMASS: particle collisions that produce a particle of mass 1000."""

from pathlib import Path

import numpy as np

from datasets.files import (
    Folder,
    Split,
    checked,
    cut_tail,
    find,
    standardized,
    without_repeats,
)

SIZES = 315_123, 35_013, 174_987
SOURCE = "https://archive.ics.uci.edu/dataset/347 (HEPMASS, 1000_train.csv and 1000_test.csv)"


def hepmass(folder: Folder = None, sizes: tuple[int, int, int] = SIZES) -> Split:
    """Return HEPMASS as prepared by Papamakarios et al. 2017 (arXiv:1705.07057, appendix D).

    Only the signal is kept, z-scored by the training file. Features that repeat a value are
    dropped.

    Args:
        folder: the data folder, see `find`.
        sizes: the number of rows expected in each part.

    Returns:
        Z-scores `(N, 21)`.
    """
    train = _signal(find(folder, ["hepmass/1000_train.csv"], SOURCE))
    test = _signal(find(folder, ["hepmass/1000_test.csv"], SOURCE))[:, : train.shape[1]]
    train, test = without_repeats(train, test)
    split = standardized(Split(*cut_tail(train), test), train, ddof=1)
    return checked("HEPMASS", split, sizes, 21)


def _signal(path: Path) -> np.ndarray:
    """Return the features of the rows of class one. The test file has an extra last column."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    return rows[rows[:, 0] == 1, 1:]
