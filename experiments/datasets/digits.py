"""Scikit-learn's handwritten digits: small images that come without a file."""

import numpy as np

from datasets.files import Folder, Split

SIZES = 1_257, 180, 360


def digits(folder: Folder = None) -> Split:
    """Return the images `(N, 64)` of 17 grey levels with uniform noise; no folder is needed.

    Densities in nats bound those of the grey levels from below.
    """
    rng = np.random.default_rng(1)
    return Split(*((part + rng.random(part.shape)).astype(np.float32) for part in levels()))


def binary_digits() -> Split:
    """Return the images with their dark pixels as ones."""
    return Split(*((part >= 8).astype(np.uint8) for part in levels()))


def levels() -> Split:
    """Return the grey levels 0 to 16, shuffled with a seed."""
    from sklearn.datasets import load_digits

    images = np.random.default_rng(0).permutation(load_digits().data)
    return Split(*np.split(images, np.cumsum(SIZES)[:-1]))
