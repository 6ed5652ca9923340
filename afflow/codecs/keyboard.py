"""A piano that writes down the notes played on it."""

from dataclasses import dataclass, field

from afflow.codecs.notes import Note


@dataclass
class _Sound:
    """A note that has not ended."""

    start: float
    velocity: int
    owes_release: bool  # the release of the note before it is still to come
    is_held: bool = False  # the key is released, and the pedal holds the note


@dataclass
class Keyboard:
    """A piano that writes down the notes played on it. The times of its calls never decrease.

    A key sounds once at a time: a press ends the note of the key that still sounds. The release of
    a silent key does nothing. A note without duration is dropped.
    """

    notes: list[Note] = field(default_factory=list)
    sounding: dict[int, _Sound] = field(default_factory=dict)
    pedal_is_down: bool = False

    def press(self, time: float, key: int, velocity: int) -> None:
        """Start a note."""
        before = self.sounding.get(key)
        self.end(time, key)
        self.sounding[key] = _Sound(time, velocity, before is not None and not before.is_held)

    def release(self, time: float, key: int) -> None:
        """End the note of a key, or hold it if the pedal is down.

        A file may have the release of a note after the press of the next note, both at one time.
        Such a release belongs to the earlier note, and the later note goes on.
        """
        sound = self.sounding.get(key)
        if sound is None:
            return
        if sound.owes_release and time == sound.start:
            sound.owes_release = False
        elif self.pedal_is_down:
            sound.is_held = True
        else:
            self.end(time, key)

    def press_pedal(self) -> None:
        """Hold the notes that are released from now on."""
        self.pedal_is_down = True

    def release_pedal(self, time: float) -> None:
        """End the notes that the pedal holds."""
        self.pedal_is_down = False
        for key in [key for key, sound in self.sounding.items() if sound.is_held]:
            self.end(time, key)

    def end(self, time: float, key: int) -> None:
        """End the note of a key, if it sounds."""
        sound = self.sounding.pop(key, None)
        if sound is not None and time > sound.start:
            self.notes.append(Note(sound.start, time, key, sound.velocity))

    def finish(self, time: float) -> list[Note]:
        """End all notes, and return them in order of their starts."""
        for key in list(self.sounding):
            self.end(time, key)
        return sorted(self.notes)
