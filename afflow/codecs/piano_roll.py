"""Notes as piano rolls."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from afflow._tools.arguments import check_positive
from afflow._tools.arrays import real_array
from afflow.codecs.notes import Note, check_note

_LOWEST, _NUM_KEYS = 21, 88  # the keys of a piano in MIDI


@dataclass(frozen=True)
class PianoRoll:
    """Notes as frames of the 88 keys of a piano, with 1 for each key that sounds.

    Column `i` is key `21 + i` of MIDI. A roll has no velocities, and it has no border between two
    notes of a key in adjacent frames. `decode` makes one note of them. Encoding a decoded roll
    returns the roll, up to empty frames at the end. `read_midi` and `write_midi` read and write
    the notes.

    Boulanger-Lewandowski et al. 2012, arXiv:1206.6392.

    Args:
        rate: frames in a second.
        velocity: the velocity of decoded notes, from 1 to 127.

    Raises:
        ValueError: for a rate or a velocity out of range.

    Example:
        >>> import afflow
        >>> codec = afflow.codecs.PianoRoll(rate=4)
        >>> notes = [afflow.codecs.Note(0.0, 0.5, 60), afflow.codecs.Note(0.5, 1.0, 64)]
        >>> roll = codec.encode(notes)
        >>> roll.shape, roll[:, 60 - 21].tolist(), roll[:, 64 - 21].tolist()
        ((4, 88), [1, 1, 0, 0], [0, 0, 1, 1])
        >>> codec.decode(roll) == notes
        True
    """

    rate: float
    velocity: int = 64

    def __post_init__(self):
        check_positive(rate=self.rate)
        check_note(Note(0.0, 0.0, _LOWEST, self.velocity))

    @property
    def num_values(self) -> int:
        """The number of values of a key in a frame."""
        return 2

    def encode(self, notes: Iterable[Note]) -> np.ndarray:
        """Return the roll of notes `(T, 88)`, `uint8`.

        The roll ends with the last note. Starts and ends are rounded to frames. A note lasts at
        least one frame.

        Args:
            notes: the notes, in any order, with keys from 21 to 108.

        Raises:
            ValueError: for a note with a time, key or velocity out of range.
        """
        spans = [self._find_span(check_note(note)) for note in notes]
        roll = np.zeros((max((stop for _, stop, _ in spans), default=0), _NUM_KEYS), np.uint8)
        for start, stop, column in spans:
            roll[start:stop, column] = 1
        return roll

    def decode(self, roll: Any) -> list[Note]:
        """Return the notes of a roll `(T, 88)` in order of their starts.

        Raises:
            ValueError: for another shape, or values that are neither 0 nor 1.
        """
        roll = np.asarray(real_array("roll", roll))
        if roll.ndim != 2 or roll.shape[1] != _NUM_KEYS:
            raise ValueError(f"Expected roll.shape (T, {_NUM_KEYS}), got {roll.shape}.")
        wrong = roll[~np.isin(roll, (0, 1))]
        if wrong.size:
            raise ValueError(
                f"Expected a roll of zeros and ones, got {wrong[0]}: cut off the padding."
            )
        edges = np.diff(roll.T.astype(np.int8), prepend=0, append=0)  # (88, T + 1)
        columns, starts = np.nonzero(edges == 1)
        stops = np.nonzero(edges == -1)[1]
        notes = zip(starts / self.rate, stops / self.rate, columns + _LOWEST, strict=True)
        velocity = int(self.velocity)
        return sorted(Note(float(a), float(b), int(key), velocity) for a, b, key in notes)

    def _find_span(self, note: Note) -> tuple[int, int, int]:
        """Return the first frame of a note, the frame after its last, and its column."""
        column = note.key - _LOWEST
        if column not in range(_NUM_KEYS):
            raise ValueError(
                f"Expected keys from {_LOWEST} to {_LOWEST + _NUM_KEYS - 1}, got {note}: leave it "
                f"out, or transpose it by octaves."
            )
        start = round(note.start * self.rate)
        return start, max(round(note.end * self.rate), start + 1), column
