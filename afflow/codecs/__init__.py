"""Codecs: data as symbols, and symbols as data."""

from afflow.codecs.alphabet import Alphabet
from afflow.codecs.byte_pairs import BytePairs
from afflow.codecs.mu_law import MuLaw

__all__ = [
    "Alphabet",
    "BytePairs",
    "MuLaw",
]
