"""Recordings of spoken digits as symbols of the mu-law."""

import wave
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from afflow.codecs import MuLaw
from datasets.files import Folder, find

SOURCE = "https://github.com/Jakobovski/free-spoken-digit-dataset (the folder recordings)"
RATE = 8000  # samples in a second
CODEC = MuLaw(256)
TEST, VALIDATION = range(5), range(45, 50)  # indices of recordings; the others are for training


class Recording(NamedTuple):
    """One recording: its samples `(T,)` in 16 bits, and the three parts of its name."""

    samples: np.ndarray
    digit: int
    speaker: str
    index: int


class Recordings(NamedTuple):
    """The symbols of `N` recordings `(T,)`, `uint8`, and their digits and speakers `(N,)`."""

    symbols: list[np.ndarray]
    digits: np.ndarray
    speakers: np.ndarray


class Speech(NamedTuple):
    """The recordings for training, for choosing a model, and for the reported score."""

    train: Recordings
    validation: Recordings
    test: Recordings


def spoken_digits(folder: Folder = None, size: int = 3000) -> Speech:
    """Return the Free Spoken Digit Dataset: 50 recordings of each digit by each of six speakers.

    The sound has 8,000 samples in a second. The dataset's README puts recordings 0 to 4 of a digit
    and speaker into the test set. Of the others, recordings 45 to 49 are for validation. A part is
    sorted by digit, then speaker, then index.

    Args:
        folder: the data folder, see `find`.
        size: the number of recordings, 3,000 in the published set.

    Raises:
        ValueError: for another number of recordings, or a file that is not a recording of the set.
    """
    names = ["fsdd/fsdd.npz", "fsdd.npz", "fsdd/recordings", "recordings"]
    path = find(folder, names, SOURCE)
    found = _read_folder(path) if path.is_dir() else _read_packed(path)
    recordings = sorted(found, key=lambda recording: recording[1:])
    if len(recordings) != size:
        raise ValueError(f"Expected {size} recordings in {path.name}, got {len(recordings)}.")
    train = set(range(50)) - set(TEST) - set(VALIDATION)
    return Speech(*(_select(recordings, part) for part in (train, set(VALIDATION), set(TEST))))


def thin(part: Recordings, size: int | None) -> Recordings:
    """Return at most `size` recordings, evenly spaced over the digits."""
    total = len(part.symbols)
    kept = np.linspace(0, total - 1, min(size or total, total)).astype(int)
    return Recordings([part.symbols[i] for i in kept], part.digits[kept], part.speakers[kept])


def cut_evenly(symbols: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return windows `(N, length)`, and the recording `(N,)` of each window.

    The windows of a recording are evenly spaced, the first at its start and the last at its end.
    They overlap as little as it takes to cover the recording, or leave less than a quarter of a
    window uncovered. Only a recording shorter than a window is padded, with NaN.
    """
    counts = [max(1, int(np.ceil(len(row) / length - 0.25))) for row in symbols]
    starts = [
        np.linspace(0, max(len(row) - length, 0), count).astype(int)
        for row, count in zip(symbols, counts, strict=True)
    ]
    owners = np.repeat(np.arange(len(symbols)), counts)
    pieces = [symbols[i][start:] for i, start in zip(owners, np.concatenate(starts), strict=True)]
    return pad(pieces, length), owners


def pad(pieces: list[np.ndarray], length: int) -> np.ndarray:
    """Return the first `length` symbols of each piece in float32, with NaN after its end."""
    rows = np.full((len(pieces), length), np.nan, np.float32)
    for row, piece in zip(rows, pieces, strict=True):
        row[: len(piece)] = piece[:length]
    return rows


def _select(recordings: list[Recording], indices: set[int]) -> Recordings:
    """Return the recordings whose index is in `indices`, as symbols."""
    chosen = [recording for recording in recordings if recording.index in indices]
    return Recordings(
        [CODEC.encode(recording.samples / 2.0**15) for recording in chosen],
        np.array([recording.digit for recording in chosen], np.uint8),
        np.array([recording.speaker for recording in chosen], str),
    )


def _read_packed(path: Path) -> Iterable[Recording]:
    """Return the recordings of a file with all samples in one array."""
    content = np.load(path)
    parts = np.split(content["samples"], content["offset"][1:-1])
    columns = (content[name].tolist() for name in ("digit", "speaker", "index"))
    return map(Recording, parts, *columns)


def _read_folder(folder: Path) -> Iterable[Recording]:
    """Yield the recordings of a folder of files `{digit}_{speaker}_{index}.wav`."""
    for path in folder.glob("*.wav"):
        try:
            digit, speaker, index = path.stem.split("_")
            name = int(digit), speaker, int(index)
        except ValueError:
            raise ValueError(
                f"Expected {{digit}}_{{speaker}}_{{index}}.wav, got {path.name}."
            ) from None
        yield Recording(_read_wave(path), *name)


def _read_wave(path: Path) -> np.ndarray:
    """Return the samples of a file, `int16`."""
    with wave.open(str(path)) as file:
        form = file.getframerate(), 8 * file.getsampwidth(), file.getnchannels()
        content = file.readframes(file.getnframes())
    if form != (RATE, 16, 1):
        raise ValueError(
            f"Expected 8000 samples in a second of 16 bits in one channel in {path.name}, got "
            f"{form[0]} of {form[1]} bits in {form[2]}."
        )
    return np.frombuffer(content, "<i2")
