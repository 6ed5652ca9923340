"""POWER: the electricity of one household, every minute for four years."""

from pathlib import Path

import numpy as np

from datasets.files import Folder, Split, checked, find, hold_out, standardized

SIZES = 1_659_917, 184_435, 204_928
SOURCE = (
    "https://zenodo.org/records/1161203 (the published table), or as "
    "power/household_power_consumption.txt from https://archive.ics.uci.edu/dataset/235"
)
NAMES = (
    "power/data.npy",
    "power/household_power_consumption.txt",
    "power/household_power.npz",
)
MINUTES_A_DAY = 24 * 60


def power(folder: Folder = None, sizes: tuple[int, int, int] = SIZES) -> Split:
    """Return POWER as prepared by Papamakarios et al. 2017 (arXiv:1705.07057, appendix D).

    The complete rows are shuffled. Reactive power and intensity are dropped, and the time of day is
    added. All columns but the time get uniform noise as wide as the steps of the meter. The file is
    the published table, UCI's text, or its columns packed as integers.

    Args:
        folder: the data folder, see `find`.
        sizes: the number of rows expected in each part.

    Returns:
        Z-scores `(N, 6)`: active power, voltage, three sub-meterings, minute of the day.
    """
    path = find(folder, NAMES, SOURCE)
    rows = READERS[path.suffix](path)  # (N, 8)
    rng = np.random.RandomState(42)
    rng.shuffle(rows)
    rows = rows[:, [0, 2, 4, 5, 6, 7]] + _noise(rng, len(rows))
    split = hold_out(rows)
    kept = np.concatenate(split[:2])
    return checked("POWER", standardized(split, kept), sizes, 6)


def _noise(rng: np.random.RandomState, size: int) -> np.ndarray:
    """Draw noise for the columns, in the order of the published code."""
    voltage = 0.01 * rng.rand(size, 1)
    active = 0.001 * rng.rand(size, 1)
    metering = rng.rand(size, 3)
    return np.hstack([active, voltage, metering, np.zeros((size, 1))])


def _text(path: Path) -> np.ndarray:
    """Return the complete rows of UCI's file, with the minute of the day as last column."""
    with path.open() as file:
        lines = [line for line in file if "?" not in line][1:]
    values = np.loadtxt(lines, delimiter=";", usecols=range(2, 9), ndmin=2)
    clocks = [line.split(";")[1] for line in lines]
    minutes = [60 * int(clock[:2]) + int(clock[3:5]) for clock in clocks]
    return np.column_stack([values, minutes])


def _packed(path: Path) -> np.ndarray:
    """Return the same rows from one integer array per column and a bit mask of missing rows."""
    file = np.load(path)
    values = [
        file[name] / scale for name, scale in zip(file["columns"], file["scale"], strict=True)
    ]
    hour, minute = str(file["start"]).split()[1].split(":")[:2]
    minutes = (60 * int(hour) + int(minute) + np.arange(file["n"])) % MINUTES_A_DAY
    missing = np.unpackbits(file["missing"])[: file["n"]].astype(bool)
    return np.column_stack([*values, minutes])[~missing]


READERS = {".npy": np.load, ".npz": _packed, ".txt": _text}
