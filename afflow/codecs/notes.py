"""Notes, and the strokes of keys that play them."""

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

_NUM_KEYS = 128
_NOWHERE = (-1, 0)  # follows the last note: no key, at no step


class Note(NamedTuple):
    """A note of a piece.

    `start` and `end` are times in seconds. `key` is a key of MIDI from 0 to 127, and middle C is
    60. `velocity` is the strength of the press, from 1 to 127.

    Example:
        >>> import afflow
        >>> afflow.codecs.Note(0.0, 0.5, key=60)
        Note(start=0.0, end=0.5, key=60, velocity=64)
    """

    start: float
    end: float
    key: int
    velocity: int = 64


class Stroke(NamedTuple):
    """A press or a release of a key at a step of time. At one step, releases sort first."""

    step: int
    is_press: bool
    key: int
    velocity: int = 0


def find_strokes(notes: Iterable[Note], rate: float) -> list[Stroke]:
    """Return the strokes of notes in order of time.

    Starts and ends are rounded to steps. A note lasts at least one step. A note ends where the next
    note of its key starts. If notes of one key start at one step, only the last to end is kept.

    Args:
        notes: the notes, in any order.
        rate: steps in a second.

    Raises:
        ValueError: for a note with a time, key or velocity out of range.
    """
    spans = {}
    for note in sorted(map(check_note, notes), key=lambda note: (note.end, note.velocity)):
        start = round(note.start * rate)
        spans[note.key, start] = max(round(note.end * rate), start + 1), note.velocity
    strokes = []
    for place, (next_key, next_start) in pairwise([*sorted(spans), _NOWHERE]):
        (key, start), (end, velocity) = place, spans[place]
        end = min(end, next_start) if next_key == key else end
        strokes.append(Stroke(start, is_press=True, key=key, velocity=velocity))
        strokes.append(Stroke(end, is_press=False, key=key))
    return sorted(strokes)


def check_note(note: Note) -> Note:
    """Return a note with whole numbers as `int`.

    Raises:
        ValueError: for a time, key or velocity out of range.
    """
    start, end, key, velocity = note
    if not 0 <= start <= end < math.inf:
        raise ValueError(f"Expected a note with 0 <= start <= end, in seconds, got {note}.")
    if key not in range(_NUM_KEYS):
        raise ValueError(f"Expected a note with a key from 0 to {_NUM_KEYS - 1}, got {note}.")
    if velocity not in range(1, _NUM_KEYS):
        raise ValueError(f"Expected a note with a velocity from 1 to 127, got {note}.")
    return Note(float(start), float(end), int(key), int(velocity))
