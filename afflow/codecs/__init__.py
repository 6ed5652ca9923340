"""Codecs: data as symbols, and symbols as data."""

from afflow.codecs.alphabet import Alphabet
from afflow.codecs.byte_pairs import BytePairs
from afflow.codecs.midi import read_midi, write_midi
from afflow.codecs.mu_law import MuLaw
from afflow.codecs.notes import Note
from afflow.codecs.performance import Performance
from afflow.codecs.piano_roll import PianoRoll

__all__ = [
    "Alphabet",
    "BytePairs",
    "MuLaw",
    "Note",
    "Performance",
    "PianoRoll",
    "read_midi",
    "write_midi",
]
