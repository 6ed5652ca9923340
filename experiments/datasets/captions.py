"""Captions of handwritten digits, from their labels and from measured attributes.

A caption says the digit, the thickness of its strokes and its slant: "a thick seven tilted left".
"""

from dataclasses import dataclass

import numpy as np
from measuring.strokes import measure_slant, measure_thickness

from datasets.files import Folder, Split
from datasets.images import images
from datasets.mnist import mnist_digits

DIGITS = "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"
THICKNESS = "thin", "plain", "thick"
SLANT = "tilted left", "upright", "tilted right"
WORDS = ("", "a", *THICKNESS, *DIGITS, "tilted", "left", "upright", "right")
"""The words of captions. The first one is the filler at the end of a short caption."""
LENGTH = 5
"""The number of words in a caption."""
SHAPE = 28, 28
"""The shape of an image."""


@dataclass(frozen=True)
class Captions:
    """The thresholds of the measured attributes, and captions by these thresholds.

    Attributes of an image are three whole numbers: the digit, the thickness as its place in
    `THICKNESS`, and the slant as its place in `SLANT`.

    Attributes:
        thickness: the two thresholds of the thickness, in pixels.
        slant: the two thresholds of the slant, in degrees.
    """

    thickness: tuple[float, float]
    slant: tuple[float, float]

    @classmethod
    def of(cls, images: np.ndarray) -> "Captions":
        """Return the captions whose thresholds divide these images `(N, H, W)` into thirds."""
        thirds = [
            np.quantile(measure(images), (1 / 3, 2 / 3)).tolist()
            for measure in (measure_thickness, measure_slant)
        ]
        return cls(*map(tuple, thirds))

    def describe(self, images: np.ndarray, digits: np.ndarray) -> np.ndarray:
        """Return the attributes `(N, 3)` of images `(N, H, W)` of known digits `(N,)`."""
        thickness = np.digitize(measure_thickness(images), self.thickness)
        slant = np.digitize(measure_slant(images), self.slant)
        return np.stack([digits, thickness, slant], axis=1)


def write(attributes: np.ndarray) -> str:
    """Return the caption of the attributes `(3,)` of one image.

    Example:
        >>> write(np.array([7, 2, 0]))
        'a thick seven tilted left'
    """
    digit, thickness, slant = attributes
    return f"a {THICKNESS[thickness]} {DIGITS[digit]} {SLANT[slant]}"


def encode(captions: list[str]) -> np.ndarray:
    """Return captions as places of their words in `WORDS`: `(N, LENGTH)`, `uint8`.

    Raises:
        ValueError: for an unknown word, or a caption of too many words.
    """
    rows = [caption.split() for caption in captions]
    for row in rows:
        if len(row) > LENGTH or not set(row) <= set(WORDS):
            raise ValueError(f"Expected at most {LENGTH} words of {WORDS}, got {' '.join(row)!r}.")
    return np.array([[*map(WORDS.index, row), *[0] * (LENGTH - len(row))] for row in rows], "u1")


def encode_attributes(attributes: np.ndarray) -> np.ndarray:
    """Return the words `(N, LENGTH)` of the captions of attributes `(N, 3)`."""
    different, places = np.unique(attributes, axis=0, return_inverse=True)
    return encode([write(row) for row in different])[places.ravel()]


@dataclass(frozen=True)
class CaptionedDigits:
    """Images of digits, their attributes `(N, 3)` and their captions `(N, LENGTH)`."""

    captions: Captions
    images: Split
    attributes: Split
    words: Split


def captioned_digits(folder: Folder = None, most: int | None = None) -> CaptionedDigits:
    """Return the images of MNIST with captions, whose thresholds are from the training images.

    Args:
        folder: the data folder, see `find`.
        most: use at most this many images of each part.
    """
    parts, labels = (
        [part[:most] for part in split] for split in (images("mnist", folder), mnist_digits(folder))
    )
    captions = Captions.of(parts[0])
    attributes = Split(*map(captions.describe, parts, labels))
    words = Split(*map(encode_attributes, attributes))
    return CaptionedDigits(captions, Split(*parts), attributes, words)
