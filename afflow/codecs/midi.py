"""Notes in MIDI files."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from afflow._tools.extras import import_extra
from afflow._tools.files import open_to_replace
from afflow.codecs.keyboard import Keyboard
from afflow.codecs.notes import Note, find_strokes

_PERCUSSION = 9  # the channel that MIDI numbers 10
_PEDAL, _DOWN = 64, 64  # the controller of the sustain pedal, and its least value that is down
_RATE, _TEMPO = 1000, 500_000  # ticks in a second, and microseconds in a beat
_DIGITS = 6  # of a time in seconds; sums of float64 differ in later digits


def read_midi(path: str | Path) -> list[Note]:
    """Return the notes of a MIDI file in order of their starts.

    The notes of all tracks and channels are in one list, without the percussion (channel 10). Times
    follow the changes of tempo. The sustain pedal is counted: a note that is released while the
    pedal is down lasts until the pedal goes up or the key is pressed again. A press of a key that
    still sounds in its channel ends the earlier note. Notes that are never released end with the
    file, and notes without duration are left out.

    Needs the library `mido` (extra `midi`).

    Args:
        path: a Standard MIDI File of format 0 or 1, with times in beats.

    Raises:
        FileNotFoundError: if the file does not exist.
        ImportError: if `mido` is missing.
        ValueError: for a damaged file, format 2, or times in frames of SMPTE.

    Example:
        >>> import afflow, tempfile
        >>> notes = [afflow.codecs.Note(0.0, 0.5, 60), afflow.codecs.Note(0.25, 1.0, 64)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     afflow.codecs.write_midi(f"{folder}/piece.mid", notes)
        ...     afflow.codecs.read_midi(f"{folder}/piece.mid") == notes
        True
    """
    keyboards: dict[int, Keyboard] = defaultdict(Keyboard)
    time = 0.0
    for message in _read_messages(path):
        time += message.time
        channel = getattr(message, "channel", _PERCUSSION)
        if channel != _PERCUSSION:
            _play(keyboards[channel], round(time, _DIGITS), message)
    time = round(time, _DIGITS)
    return sorted(note for keyboard in keyboards.values() for note in keyboard.finish(time))


def write_midi(path: str | Path, notes: Iterable[Note]) -> None:
    """Write notes to a MIDI file of one track.

    Times are rounded to a millisecond. A note lasts at least one millisecond. A note ends where the
    next note of its key starts. Needs the library `mido` (extra `midi`).

    Args:
        path: the file. An existing file is replaced.
        notes: the notes, in any order.

    Raises:
        ImportError: if `mido` is missing.
        ValueError: for a note with a time, key or velocity out of range.

    Example:
        >>> import afflow, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     afflow.codecs.write_midi(f"{folder}/c.mid", [afflow.codecs.Note(0.0, 1.0, 60, 90)])
        ...     afflow.codecs.read_midi(f"{folder}/c.mid")
        [Note(start=0.0, end=1.0, key=60, velocity=90)]
    """
    mido = _mido()
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=_TEMPO)])
    now = 0
    for step, is_press, key, velocity in find_strokes(notes, _RATE):
        kind = "note_on" if is_press else "note_off"
        track.append(mido.Message(kind, note=key, velocity=velocity, time=step - now))
        now = step
    file = mido.MidiFile(type=0, tracks=[track], ticks_per_beat=_RATE * _TEMPO // 1_000_000)
    with open_to_replace(path, "wb") as stream:
        file.save(file=stream)


def _play(keyboard: Keyboard, time: float, message: Any) -> None:
    """Play a message of one channel."""
    if message.type == "note_on" and message.velocity > 0:
        keyboard.press(time, message.note, message.velocity)
    elif message.type in ("note_on", "note_off"):  # a press of velocity 0 is a release
        keyboard.release(time, message.note)
    elif message.is_cc(_PEDAL) and message.value >= _DOWN:
        keyboard.press_pedal()
    elif message.is_cc(_PEDAL):
        keyboard.release_pedal(time)


def _read_messages(path: str | Path) -> list[Any]:
    """Return the messages of all tracks in order of time, each with its seconds since the last."""
    mido = _mido()
    try:
        file = mido.MidiFile(path)
        if file.ticks_per_beat <= 0:
            raise ValueError("its times are frames of SMPTE")
        return list(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # a flipped bit may raise anything
        raise ValueError(f"Expected a whole MIDI file, got {path}: {error!r}.") from error


def _mido() -> Any:
    return import_extra("mido", "midi", "reads and writes MIDI files")
