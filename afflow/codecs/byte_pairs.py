"""Byte-pair encoding of text."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from afflow._tools.arguments import check_instance
from afflow._tools.extras import import_extra
from afflow._tools.files import open_to_replace
from afflow._tools.shapes import check_size
from afflow._tools.symbols import choose_type, read_sequence

_NUM_BYTES = 256
# A tokenizer that changes the case, the accents or the blanks of a text changes this text.
_PROBE = "A e\u0301\u00e9\u2126\ufb01  \r\n\t\x00\U0001d11e "


@dataclass(frozen=True)
class BytePairs:
    """Frequent strings of bytes as symbols: byte-level byte-pair encoding.

    The text is written in UTF-8. The first symbols are the 256 bytes. Each further symbol joins the
    pair of neighbouring symbols that is most frequent in the text of training. Pairs are joined
    within words only. Every text can be encoded, also text with new characters, and decoding
    returns it unchanged.

    Sennrich et al. 2016, arXiv:1508.07909; Radford et al. 2019 (GPT-2), section 2.2. Needs the
    library `tokenizers` (extra `text`).

    Args:
        description: the symbols and pairs in the JSON text of `tokenizers`. `learn` and `load`
            make it.

    Raises:
        ImportError: if `tokenizers` is missing.
        ValueError: for a description of another codec, or of one that changes text.

    Example:
        >>> import afflow
        >>> codec = afflow.codecs.BytePairs.learn("abracadabra " * 9, num_values=260)
        >>> len(codec.encode("abracadabra")), len(codec.encode("naïve"))
        (4, 6)
        >>> codec.decode(codec.encode("naïve"))
        'naïve'
    """

    description: str = field(repr=False)

    def __post_init__(self):
        if self.decode(self.encode(_PROBE)) != _PROBE:
            raise ValueError(
                "Expected byte pairs that keep every text, got a tokenizer that changes text: "
                "call BytePairs.learn."
            )

    @classmethod
    def learn(cls, text: str, num_values: int) -> "BytePairs":
        """Return the byte pairs of a text.

        Args:
            text: the text of training.
            num_values: the largest number of symbols, at least 256. A short text has fewer pairs
                that occur twice, and then fewer symbols.

        Raises:
            ImportError: if `tokenizers` is missing.
            ValueError: for fewer than 256 symbols, or half a surrogate pair in the text.
        """
        check_size("num_values", num_values, _NUM_BYTES)
        _check_text(text)
        parts = _tokenizers()
        tokenizer = parts.Tokenizer(parts.models.BPE())
        tokenizer.pre_tokenizer = parts.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = parts.decoders.ByteLevel()
        trainer = parts.trainers.BpeTrainer(
            vocab_size=int(num_values),
            min_frequency=2,
            initial_alphabet=parts.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator([text], trainer)
        return cls(tokenizer.to_str())

    @property
    def num_values(self) -> int:
        """The number of symbols."""
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str) -> np.ndarray:
        """Return the symbols of a text `(N,)`, in the smallest unsigned type.

        Raises:
            ValueError: for half a surrogate pair, which UTF-8 cannot write.
        """
        _check_text(text)
        return np.array(self._tokenizer.encode(text).ids, choose_type(self.num_values))

    def decode(self, symbols: Any) -> str:
        """Return the text of symbols `(N,)`.

        Symbols from a model may end within a character. Bytes that are no UTF-8 become U+FFFD.

        Raises:
            ValueError: for symbols that are not integers from 0 to `num_values - 1`.
        """
        symbols = read_sequence(symbols, self.num_values)
        return self._tokenizer.decode(symbols.tolist(), skip_special_tokens=False)

    def save(self, path: str | Path) -> None:
        """Write the byte pairs to a file of JSON, which `tokenizers` also reads."""
        with open_to_replace(path, "w", encoding="utf-8") as file:
            file.write(self.description)

    @classmethod
    def load(cls, path: str | Path) -> "BytePairs":
        """Return the byte pairs of a file that `save` or `tokenizers` wrote.

        Raises:
            FileNotFoundError: if the file does not exist.
            ImportError: if `tokenizers` is missing.
            ValueError: for a damaged file, and for a tokenizer that changes text.
        """
        return cls(Path(path).read_text(encoding="utf-8"))

    @cached_property
    def _tokenizer(self) -> Any:
        read = _tokenizers().Tokenizer.from_str
        try:
            return read(self.description)
        except Exception as error:  # `tokenizers` raises no narrower class
            raise ValueError(f"Expected the JSON of byte pairs, got an error: {error}.") from error


def _check_text(text: str) -> None:
    check_instance("text", text, str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"Expected text that UTF-8 can write, got {text[error.start]!r} at position "
            f"{error.start}: replace it."
        ) from error


def _tokenizers() -> Any:
    return import_extra("tokenizers", "text", "learns and applies byte pairs")
