"""Scikit-learn's handwritten digits: small images that need no file."""

import numpy as np

from datasets.files import Folder, Split

SIZES = 1_257, 180, 360


def digits(folder: Folder = None) -> Split:
    """Return the images `(N, 64)` of 17 grey levels with uniform noise; no folder is needed.

    A mean log-density in nats is a lower bound on the mean log-probability of the grey levels.
    """
    rng = np.random.default_rng(1)
    return Split(*((part + rng.random(part.shape)).astype(np.float32) for part in levels()))


def binary_digits() -> Split:
    """Return the images with dark pixels as ones."""
    return Split(*((part >= 8).astype(np.uint8) for part in levels()))


def levels() -> Split:
    """Return the grey levels 0 to 16 of all images, shuffled with a fixed seed."""
    from sklearn.datasets import load_digits

    images = np.random.default_rng(0).permutation(load_digits().data)
    return Split(*np.split(images, np.cumsum(SIZES)[:-1]))
