"""Notes as MIDI files, performances and piano rolls."""

import math
import struct
import sys

import mido
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from afflow.codecs import Note, Performance, PianoRoll, read_midi, write_midi

ON, OFF, PEDAL = 0x90, 0x80, 0xB0
CODEC = Performance()


def track(*content: bytes | tuple) -> bytes:
    body = b"".join(bytes(part) for part in content) + b"\x00\xff\x2f\x00"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def header(kind: int, num_tracks: int, division: int = 100) -> bytes:
    return b"MThd" + struct.pack(">IHHh", 6, kind, num_tracks, division)


def tempo(delta: int, microseconds: int) -> bytes:
    return bytes([delta, 0xFF, 0x51, 3]) + microseconds.to_bytes(3, "big")


@pytest.fixture
def read(tmp_path):
    """Return a function that reads the notes of bytes."""

    def read_bytes(*parts: bytes) -> list[Note]:
        (tmp_path / "piece.mid").write_bytes(b"".join(parts))
        return read_midi(tmp_path / "piece.mid")

    return read_bytes


@pytest.fixture
def play(read):
    """Return a function that reads one track of events, with 100 ticks in a second."""
    second = tempo(0, 1_000_000)
    return lambda *events: read(header(0, 1), track(second, *events))


@st.composite
def pieces(draw, rate, velocities):
    """Return notes on a grid of time, of which no two of a key overlap."""
    notes = []
    for key in draw(st.lists(st.integers(0, 127), unique=True, max_size=4)):
        times = sorted(draw(st.lists(st.integers(0, 500), unique=True, max_size=12)))
        for start, end in zip(times[::2], times[1::2], strict=False):
            notes.append(Note(start / rate, end / rate, key, draw(velocities)))
    return sorted(notes)


times = st.floats(0, 5)
any_notes = st.lists(
    st.tuples(times, times, st.integers(60, 62), st.integers(1, 127)).map(
        lambda t: Note(min(t[:2]), max(t[:2]), *t[2:])
    )
)


# MIDI files


def test_times_follow_changes_of_tempo(read):
    """The tempo is 1 s a beat of 100 ticks at first, and 0.25 s after 100 ticks."""
    changes = track(tempo(0, 1_000_000), tempo(100, 250_000))
    notes = track((50, ON, 60, 80), (100, OFF, 60, 0), (100, ON, 64, 90), (50, 64, 0), (9, 1, 0))
    assert read(header(1, 2), changes, notes) == [
        Note(0.5, 1.125, 60, 80),
        Note(1.375, 1.5, 64, 90),  # ended by a press of velocity 0 in running status
    ]


def test_the_tempo_is_half_a_second_a_beat_at_first(read):
    assert read(header(0, 1), track((100, ON, 60, 1), (100, OFF, 60, 0)))[0] == (0.5, 1.0, 60, 1)


def test_channels_and_percussion(play):
    """A key may sound in two channels at a time. Channel 10 is left out."""
    notes = play(
        (0, ON, 60, 80), (50, ON + 1, 60, 81), (0, ON + 9, 35, 99), (50, OFF, 60, 0),
        (100, OFF + 1, 60, 0),
    )  # fmt: skip
    assert notes == [Note(0.0, 1.0, 60, 80), Note(0.5, 2.0, 60, 81)]


def test_the_pedal_holds_released_notes(play):
    notes = play(
        (0, ON, 60, 80), (0, ON, 64, 80), (10, PEDAL, 64, 127), (10, OFF, 60, 0),
        (10, ON, 60, 70), (10, OFF, 60, 0), (10, PEDAL, 64, 63), (50, OFF, 64, 0),
    )  # fmt: skip
    assert notes == [Note(0.0, 0.3, 60, 80), Note(0.0, 1.0, 64, 80), Note(0.3, 0.5, 60, 70)]


def test_the_pedal_goes_up_before_a_release(play):
    notes = play(
        (0, ON, 60, 80), (10, PEDAL, 64, 64), (10, PEDAL, 64, 0), (10, OFF, 60, 0), (9, OFF, 1, 0)
    )  # fmt: skip
    assert notes == [Note(0.0, 0.3, 60, 80)]


def test_the_least_value_of_a_pedal_that_is_down(play):
    for value, end in ((63, 0.1), (64, 0.3)):
        pedal = (0, PEDAL, 64, value)
        notes = play(pedal, (0, ON, 60, 80), (10, OFF, 60, 0), (20, PEDAL, 64, 0), (9, OFF, 1, 0))
        assert notes == [Note(0.0, end, 60, 80)]


def test_the_pedal_holds_a_short_stroke_of_a_held_key(play):
    notes = play(
        (0, PEDAL, 64, 127), (0, ON, 60, 80), (10, OFF, 60, 0), (10, ON, 60, 70), (0, OFF, 60, 0),
        (10, PEDAL, 64, 0), (10, OFF, 60, 0),
    )  # fmt: skip
    assert notes == [Note(0.0, 0.2, 60, 80), Note(0.2, 0.3, 60, 70)]


def test_a_press_of_a_sounding_key_ends_its_note(play):
    notes = play((0, ON, 60, 80), (10, ON, 60, 70), (10, OFF, 60, 0), (10, OFF, 60, 0))
    assert notes == [Note(0.0, 0.1, 60, 80), Note(0.1, 0.2, 60, 70)]


def test_a_release_just_after_the_next_press_belongs_to_the_earlier_note(play):
    notes = play((0, ON, 60, 80), (10, ON, 60, 70), (0, OFF, 60, 0), (10, OFF, 60, 0))
    assert notes == [Note(0.0, 0.1, 60, 80), Note(0.1, 0.2, 60, 70)]


def test_notes_that_never_end_or_begin(play):
    notes = play((0, OFF, 60, 0), (0, ON, 61, 80), (0, ON, 62, 9), (0, OFF, 62, 0), (99, OFF, 1, 0))
    assert notes == [Note(0.0, 0.99, 61, 80)]


def test_files_that_are_no_midi(read, tmp_path):
    whole = header(0, 1) + track((0, ON, 60, 80), (10, OFF, 60, 0))
    assert read(whole)
    for part in (b"", b"MThd", b"RIFF" * 9, whole[:-8], header(0, 1, -6400) + whole[14:]):
        with pytest.raises(ValueError, match="Expected a whole MIDI file"):
            read(part)
    with pytest.raises(ValueError, match="type 2"):
        read(header(2, 1), whole[14:])
    with pytest.raises(FileNotFoundError):
        read_midi(tmp_path / "none.mid")


def test_written_messages(tmp_path):
    """Another reader sees the notes, with releases before presses at one time."""
    write_midi(tmp_path / "a.mid", [Note(0.5, 2.0, 60, 9), Note(0.0, 0.5, 60, 100)])
    found, time = [], 0.0
    for message in mido.MidiFile(tmp_path / "a.mid"):
        time += message.time
        if not message.is_meta:
            found.append((round(time, 9), message.type, message.note, message.velocity))
    assert found == [
        (0.0, "note_on", 60, 100),
        (0.5, "note_off", 60, 0),
        (0.5, "note_on", 60, 9),
        (2.0, "note_off", 60, 0),
    ]


@given(notes=pieces(1000, st.integers(1, 127)))
def test_written_notes_are_read(notes, tmp_path_factory):
    path = tmp_path_factory.mktemp("midi") / "piece.mid"
    write_midi(path, notes[::-1])
    assert read_midi(path) == notes


def test_missing_mido_says_how_to_mend(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mido", None)
    for call in (lambda: read_midi("a.mid"), lambda: write_midi(tmp_path / "a.mid", [])):
        with pytest.raises(ImportError, match=r"pip install 'afflow\[midi\]'"):
            call()


# Performances


def test_symbols_of_a_chord():
    notes = [
        Note(0.5, 2.75, 64, 127), Note(0.5, 2.75, 60, 1), Note(0.5, 2.75, 62, 3),
        Note(2.75, 2.76, 60, 3),
    ]  # fmt: skip
    on, off, shift, velocity = 0, 128, 255, 356
    assert CODEC.encode(notes).tolist() == [
        shift + 50, velocity + 0, on + 60, on + 62, velocity + 31, on + 64,
        shift + 100, shift + 100, shift + 25,
        off + 60, off + 62, off + 64, velocity + 0, on + 60, shift + 1, off + 60,
    ]  # fmt: skip


@given(pieces(100, st.integers(0, 31).map(lambda cell: 4 * cell + 2)))
def test_notes_on_the_grid_survive(notes):
    assert CODEC.decode(CODEC.encode(notes[::-1])) == notes


@given(any_notes)
def test_at_each_step_a_key_sounds_by_its_latest_note(notes):
    """Paint each note on a grid from its start on. Later notes paint over earlier notes."""
    expected = np.zeros((3, 600), int)
    for start, end, key, velocity in sorted(notes, key=lambda n: (round(n.start * 100), n.end)):
        first, last = round(start * 100), round(end * 100)
        expected[key - 60, first:] = 0
        expected[key - 60, first : max(last, first + 1)] = 4 * (velocity // 4) + 2
    found = np.zeros_like(expected)
    for start, end, key, velocity in CODEC.decode(CODEC.encode(notes)):
        found[key - 60, round(start * 100) : round(end * 100)] += velocity
    if len({(n.key, round(n.start * 100)) for n in notes}) == len(notes):
        np.testing.assert_array_equal(found, expected)
    else:  # of notes that start together, the longest lasts
        np.testing.assert_array_equal(found > 0, expected > 0)


def test_velocities_are_near():
    notes = [Note(i / 10, (i + 1) / 10, 60, i) for i in range(1, 128)]
    found = CODEC.decode(CODEC.encode(notes))
    assert all(abs(a.velocity - b.velocity) <= 2 for a, b in zip(notes, found, strict=True))


def test_malformed_symbols():
    second = 355
    assert CODEC.decode([128 + 60, second]) == []  # a release of a silent key
    assert CODEC.decode([60, second, second]) == [Note(0.0, 2.0, 60, 66)]  # no velocity, no end
    assert CODEC.decode([60, second, 60, second, 188, second, 188]) == [
        Note(0.0, 1.0, 60, 66),
        Note(1.0, 2.0, 60, 66),
    ]
    assert CODEC.decode([second, 60]) == []  # no duration
    assert CODEC.decode([60, 188, 60, second, 188]) == [Note(0.0, 1.0, 60, 66)]


@given(st.lists(st.integers(0, 387)))
def test_every_sequence_of_symbols_is_a_piece(symbols):
    """Decoded notes are on the grid, so they survive a second pass."""
    notes = CODEC.decode(symbols)
    assert all(0 <= note.start < note.end and 1 <= note.velocity <= 127 for note in notes)
    assert CODEC.decode(CODEC.encode(notes)) == notes


# Piano rolls


def test_a_roll_of_notes():
    roll = PianoRoll(rate=2).encode([Note(0.0, 1.0, 21), Note(1.5, 1.5, 108), Note(0.6, 2.4, 22)])
    expected = np.zeros((5, 88))
    expected[0:2, 0] = expected[1:5, 1] = expected[3, 87] = 1
    assert roll.dtype == np.uint8
    np.testing.assert_array_equal(roll, expected)


@given(arrays(np.uint8, st.tuples(st.integers(0, 9), st.just(88)), elements=st.integers(0, 1)))
@pytest.mark.parametrize("rate", [1, 3, 7.3, 100])
def test_rolls_survive(rate, roll):
    codec = PianoRoll(rate)
    notes = codec.decode(roll)
    starts = np.diff(roll.astype(int), axis=0, prepend=0) == 1
    assert len(notes) == starts.sum()
    assert notes == sorted(notes)
    again = codec.encode(notes)
    np.testing.assert_array_equal(again, roll[: len(again)])
    assert not roll[len(again) :].any()


def test_a_roll_in_a_file(tmp_path):
    codec = PianoRoll(rate=4, velocity=100)
    roll = np.random.default_rng(0).integers(0, 2, (16, 88))
    write_midi(tmp_path / "roll.mid", codec.decode(roll.astype(bool)))
    notes = read_midi(tmp_path / "roll.mid")
    assert {note.velocity for note in notes} == {100}
    np.testing.assert_array_equal(codec.encode(notes), roll)


@pytest.mark.parametrize(
    "roll", [np.zeros((3, 87)), np.zeros(88), np.full((1, 88), np.nan), [[2] * 88]]
)
def test_arrays_that_are_no_roll(roll):
    with pytest.raises(ValueError, match="Expected (roll.shape|a roll)"):
        PianoRoll(4).decode(roll)


@pytest.mark.parametrize("options", [{"rate": 0}, {"rate": 4, "velocity": 128}, {"rate": math.nan}])
def test_options_of_rolls_out_of_range(options):
    with pytest.raises(ValueError, match="rate|velocity"):
        PianoRoll(**options)


@pytest.mark.parametrize("key", [20, 109])
def test_a_key_that_a_piano_lacks(key):
    with pytest.raises(ValueError, match="keys from 21 to 108"):
        PianoRoll(4).encode([Note(0.0, 1.0, key)])


# Notes


@pytest.mark.parametrize(
    "note",
    [
        Note(-0.1, 1.0, 60),
        Note(1.0, 0.5, 60),
        Note(0.0, math.inf, 60),
        Note(math.nan, 1.0, 60),
        Note(0.0, 1.0, 128),
        Note(0.0, 1.0, -1),
        Note(0.0, 1.0, 60, 0),
        Note(0.0, 1.0, 60, 128),
    ],
)
def test_notes_out_of_range(note, tmp_path):
    for encode in (
        CODEC.encode,
        PianoRoll(4).encode,
        lambda notes: write_midi(tmp_path / "a.mid", notes),
    ):
        with pytest.raises(ValueError, match="Expected a note with"):
            encode([note])
    assert not (tmp_path / "a.mid").exists()


def test_notes_of_numpy_numbers(tmp_path):
    note = Note(np.float32(0.5), np.float64(1.0), np.int64(60), np.uint8(66))
    assert CODEC.decode(CODEC.encode([note])) == [note]
    write_midi(tmp_path / "a.mid", [note])
    assert read_midi(tmp_path / "a.mid") == [note]
    assert PianoRoll(2, velocity=66).decode(PianoRoll(2).encode([note])) == [note]
