"""Texts as sequences of symbols."""

from typing import NamedTuple

import numpy as np

from afflow.codecs import Alphabet
from datasets.files import Folder, Split, cut_tail, find

BLOCK, EVERY = 2000, 20  # characters in a block, and the share of the blocks for validation
SOURCE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"


class Text(NamedTuple):
    """The symbols of the three parts of a text `(N,)`, and the characters that they stand for."""

    symbols: Split
    alphabet: Alphabet


def tiny_shakespeare(folder: Folder = None) -> Text:
    """Return Tiny Shakespeare: 1,115,394 characters, 65 of them different.

    The last tenth is the test set, as is usual. Of the rest, every twentieth block of 2,000
    characters is for validation, so that all of the plays are in the training set.
    """
    names = ["text/tinyshakespeare_input.txt", "tinyshakespeare/input.txt", "input.txt"]
    text = find(folder, names, SOURCE).read_text()
    alphabet = Alphabet.of(text)
    symbols = alphabet.encode(text)
    if (len(symbols), alphabet.num_values) != (1_115_394, 65):
        raise ValueError(
            f"Expected 1,115,394 characters of 65 kinds in Tiny Shakespeare, got {len(symbols)} of "
            f"{alphabet.num_values}."
        )
    rest, test = cut_tail(symbols)
    held_out = np.arange(len(rest)) // BLOCK % EVERY == EVERY - 1
    return Text(Split(rest[~held_out], rest[held_out], test), alphabet)
