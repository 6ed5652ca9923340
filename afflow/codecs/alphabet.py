"""Characters as symbols."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from afflow._tools.arguments import check_instance
from afflow._tools.symbols import choose_type, read_sequence


@dataclass(frozen=True)
class Alphabet:
    """Characters of a text as symbols: a character is encoded by its place in the alphabet.

    A character is one Unicode code point. A letter and a combining accent are two characters.

    Args:
        characters: the characters, each of them once.

    Raises:
        ValueError: for no character, or one that occurs twice.

    Example:
        >>> import afflow
        >>> alphabet = afflow.codecs.Alphabet.of("abracadabra")
        >>> alphabet
        Alphabet(characters='abcdr')
        >>> alphabet.encode("cab").tolist()
        [2, 0, 1]
        >>> alphabet.decode([0, 1, 4, 0])
        'abra'
    """

    characters: str

    def __post_init__(self):
        check_instance("characters", self.characters, str)
        if not self.characters or len(set(self.characters)) < len(self.characters):
            raise ValueError(
                f"Expected different characters, got {self.characters!r}: call "
                f"Alphabet.of(text) for the characters of a text."
            )

    @classmethod
    def of(cls, text: str) -> "Alphabet":
        """Return the alphabet of the characters that occur in a text, sorted.

        Raises:
            ValueError: for an empty text.
        """
        check_instance("text", text, str)
        return cls("".join(sorted(set(text))))

    @property
    def num_values(self) -> int:
        """The number of characters."""
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Return the symbols of a text `(N,)`, in the smallest unsigned type.

        Raises:
            ValueError: for a character that is not in the alphabet. The message says its position.
        """
        check_instance("text", text, str)
        points, codes = _code_points(self.characters), _code_points(text)
        places = np.full(int(points.max()) + 2, self.num_values, np.uint32)
        places[points] = np.arange(self.num_values)
        symbols = places[np.minimum(codes, len(places) - 1)]  # the last place is unknown
        unknown = np.flatnonzero(symbols == self.num_values)
        if unknown.size:
            raise ValueError(
                f"Expected characters of the alphabet, got {text[unknown[0]]!r} at position "
                f"{unknown[0]}: replace it, or make an alphabet that has it."
            )
        return symbols.astype(choose_type(self.num_values))

    def decode(self, symbols: Any) -> str:
        """Return the text of symbols `(N,)`.

        Raises:
            ValueError: for symbols that are not integers from 0 to `num_values - 1`.
        """
        codes = _code_points(self.characters)[read_sequence(symbols, self.num_values)]
        return codes.tobytes().decode("utf-32-le", "surrogatepass")


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
