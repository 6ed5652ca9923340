"""MINIBOONE: a search for neutrino oscillations."""

from pathlib import Path

import numpy as np

from datasets.files import (
    Folder,
    Split,
    checked,
    cut_tail,
    find,
    hold_out,
    standardized,
    without_repeats,
)

SIZES = 29_556, 3_284, 3_648
MISSING = -100
SOURCE = "https://archive.ics.uci.edu/dataset/199 (MiniBooNE, MiniBooNE_PID.txt)"
PREPARED = (
    "https://github.com/vsimkus/variational-gibbs-inference (data/miniboone/val.npy and test.npy)"
)


def miniboone(folder: Folder = None, sizes: tuple[int, int, int] = SIZES) -> Split:
    """Return MINIBOONE as prepared by Papamakarios et al. 2017 (arXiv:1705.07057, appendix D).

    Only the signal is kept, without failed rows and without features that repeat a value. The rows
    are z-scored by the training and validation rows.

    Args:
        folder: the data folder, see `find`.
        sizes: the number of rows expected in each part.

    Returns:
        Z-scores `(N, 43)`.
    """
    path = find(folder, ["miniboone/MiniBooNE_PID.txt", "miniboone/data.npy"], SOURCE)
    rows = np.load(path) if path.suffix == ".npy" else _features(path)
    split = hold_out(rows)
    kept = np.concatenate(split[:2])
    return checked("MINIBOONE", standardized(split, kept), sizes, 43)


def miniboone_small(folder: Folder = None) -> Split:
    """Return MINIBOONE's true test set, with its validation set for training and validation.

    This small set in 43 dimensions does not need the full training set. The last tenth of the
    published validation rows is the validation set, and the rest is the training set. Scores are
    not comparable with published scores.
    """
    rest, test = (
        np.load(find(folder, [f"miniboone/{part}.npy"], PREPARED)) for part in ("val", "test")
    )
    split = Split(*(part.astype(np.float32) for part in (*cut_tail(rest), test)))
    return checked("MINIBOONE", split, (2_956, 328, SIZES[2]), 43)


def _features(path: Path) -> np.ndarray:
    """Return the usable rows of the signal. The first line holds the counts of both classes."""
    with path.open() as file:
        signal, _ = map(int, file.readline().split())
        rows = np.loadtxt(file, max_rows=signal, ndmin=2)
    (rows,) = without_repeats(rows[rows[:, 0] >= MISSING])
    return rows
