"""Windows of spoken digits as numbers of scale 1, with contexts of digits and speakers."""

from typing import NamedTuple

import numpy as np
from datasets.speech import CODEC, Recordings, cut_evenly

DIGITS = np.arange(10)


class Windows(NamedTuple):
    """Windows of standardised sound `(N, length)`, and their contexts `(N, 10 + speakers)`."""

    sounds: np.ndarray
    contexts: np.ndarray


class Units(NamedTuple):
    """The units of a sound: the companded values of the mu-law, with scale 1."""

    scale: float

    @staticmethod
    def of(symbols: list[np.ndarray]) -> "Units":
        """Return the units in which all symbols together have standard deviation 1."""
        return Units(float(np.std(np.concatenate(symbols) / 128 - 1)))

    def encode(self, symbols: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return symbols with uniform noise as numbers of scale 1."""
        companded = (symbols + rng.random(symbols.shape)) / 128 - 1
        return (companded / self.scale).astype(np.float32)

    def decode(self, x: np.ndarray) -> np.ndarray:
        """Return the sound between -1 and 1 of numbers of scale 1."""
        symbols = np.floor((np.asarray(x) * self.scale + 1) * 128)
        return CODEC.decode(np.clip(symbols, 0, 255).astype(np.uint8))


def make_contexts(digits: np.ndarray, speakers: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return zeros and ones `(N, 10 + len(names))`: one for the digit, one for the speaker."""
    columns = [digits[:, None] == DIGITS, speakers[:, None] == names]
    return np.hstack(columns).astype(np.float32)


def cut(part: Recordings, units: Units, names: np.ndarray, length: int) -> Windows:
    """Return the windows of a part. Recordings shorter than a window are left out."""
    rows, owners = cut_evenly(part.symbols, length)
    whole = np.isfinite(rows).all(1)
    contexts = make_contexts(part.digits, part.speakers, names)[owners]
    return Windows(units.encode(rows[whole], np.random.default_rng(0)), contexts[whole])


def thin_windows(windows: Windows, size: int) -> Windows:
    """Return `size` windows, evenly spaced."""
    rows = np.arange(size) * len(windows.sounds) // size
    return Windows(*(part[rows] for part in windows))
