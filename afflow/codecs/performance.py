"""Notes as the events of a performance."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from afflow._tools.symbols import choose_type, read_sequence
from afflow.codecs.keyboard import Keyboard
from afflow.codecs.notes import Note, find_strokes

_RATE = 100  # steps in a second
_OFF, _SHIFT, _VELOCITY, _END = 128, 256, 356, 388  # first symbol of each kind; presses are first
_LONGEST = _VELOCITY - _SHIFT  # steps of the longest time shift
_CELL, _CENTRE = 4, 2  # velocities in a cell, and the velocity that stands for the cell
_UNSET = 66  # the velocity of presses before the first symbol of a velocity


@dataclass(frozen=True)
class Performance:
    """Notes as the symbols of a performance, with time in steps of 10 ms.

    | symbols | meaning |
    |---|---|
    | 0..127 | press key `k` |
    | 128..255 | release key `k - 128` |
    | 256..355 | go on in time by `k - 255` steps, from 10 ms to 1 s |
    | 356..387 | press with velocity `4 (k - 356) + 2` from now on, for velocities in a cell of 4 |

    Oore et al. 2018, arXiv:1808.03715, with 125 steps of 8 ms; Huang et al. 2018 (Music
    Transformer), arXiv:1809.04281, with these 388 symbols.

    Example:
        >>> import afflow
        >>> codec = afflow.codecs.Performance()
        >>> symbols = codec.encode([afflow.codecs.Note(0.0, 1.2, key=60, velocity=66)])
        >>> symbols.tolist()  # velocity, press, 1 s, 0.2 s, release
        [372, 60, 355, 275, 188]
        >>> codec.decode(symbols)
        [Note(start=0.0, end=1.2, key=60, velocity=66)]
    """

    @property
    def num_values(self) -> int:
        """The number of symbols."""
        return _END

    def encode(self, notes: Iterable[Note]) -> np.ndarray:
        """Return the symbols of notes `(N,)`, `uint16`.

        Times are rounded to steps, and velocities to their cells. A note lasts at least one step. A
        note ends where the next note of its key starts. If notes of one key start at one step, only
        the last to end is kept. At one step releases come first, then presses by key. A velocity
        has a symbol where it changes.

        Args:
            notes: the notes, in any order.

        Raises:
            ValueError: for a note with a time, key or velocity out of range.
        """
        symbols, now, level = [], 0, None
        for step, is_press, key, velocity in find_strokes(notes, _RATE):
            symbols += _shift(step - now)
            if is_press and velocity // _CELL != level:
                level = velocity // _CELL
                symbols.append(_VELOCITY + level)
            symbols.append(key if is_press else _OFF + key)
            now = step
        return np.array(symbols, choose_type(_END))

    def decode(self, symbols: Any) -> list[Note]:
        """Return the notes of symbols `(N,)` in order of their starts.

        Every sequence of symbols has notes. A release of a silent key does nothing. A press of a
        key that sounds ends its note and starts another. Notes that are never released end with the
        last time shift. Notes without duration are left out. Presses before the first velocity have
        velocity 66.

        Raises:
            ValueError: for symbols that are not integers from 0 to 387.
        """
        keyboard, step, velocity = Keyboard(), 0, _UNSET
        for symbol in read_sequence(symbols, _END).tolist():
            if symbol < _OFF:
                keyboard.press(step / _RATE, symbol, velocity)
            elif symbol < _SHIFT:
                keyboard.release(step / _RATE, symbol - _OFF)
            elif symbol < _VELOCITY:
                step += symbol - _SHIFT + 1
            else:
                velocity = _CELL * (symbol - _VELOCITY) + _CENTRE
        return keyboard.finish(step / _RATE)


def _shift(steps: int) -> list[int]:
    """Return the time shifts that go on by a number of steps, the longest first."""
    whole, rest = divmod(steps, _LONGEST)
    return [_VELOCITY - 1] * whole + ([_SHIFT + rest - 1] if rest else [])
