"""BSDS300: patches of natural images."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from datasets.files import Folder, Split, checked, find

SIZES = 1_000_000, 50_000, 250_000
SIDE, HELD_OUT = 8, 20
NAMES = "BSDS300/BSDS300.hdf5", "bsds300/BSDS300_images_train.tar"
SOURCE = (
    "https://zenodo.org/records/1161203 (the published patches), or as images from "
    "https://github.com/BIDS/BSDS500 (BSDS500/data/images/train and val, one tar each)"
)
GREY = 0.2989, 0.5870, 0.1140


def bsds300(folder: Folder = None, sizes: tuple[int, int, int] = SIZES) -> Split:
    """Return the published patches of BSDS300, or a seeded draw by the same recipe.

    The recipe is from Uria et al. 2013 (arXiv:1306.0186). Grey patches of 8x8 pixels get uniform
    noise and are divided by 256. Then the mean of each patch is subtracted, and the last pixel is
    dropped. The validation patches come from 20 of the 200 training images. These images are not
    used for training.

    Args:
        folder: the data folder, see `find`.
        sizes: the number of patches in each part.

    Returns:
        Patches `(N, 63)`, not standardised.
    """
    path = find(folder, NAMES, SOURCE)
    split = _published(path, sizes) if path.suffix == ".hdf5" else _drawn(path, sizes)
    return checked("BSDS300", split, sizes, SIDE**2 - 1)


def _published(path: Path, sizes: tuple[int, int, int]) -> Split:
    """Return the published patches, or a seeded choice of as many as are asked for."""
    import h5py  # only for the published file

    with h5py.File(path) as file:
        split = Split(*(np.asarray(file[part]) for part in ("train", "validation", "test")))
    rng, chosen = np.random.default_rng(42), []
    for part, size in zip(split, sizes, strict=True):
        is_more = len(part) > size
        chosen.append(part[np.sort(rng.permutation(len(part))[:size])] if is_more else part)
    return Split(*chosen)


def _drawn(path: Path, sizes: tuple[int, int, int]) -> Split:
    rng = np.random.default_rng(42)
    images = list(_images(path))
    rng.shuffle(images)
    parts = images[HELD_OUT:], images[:HELD_OUT], list(_images(_test(path)))
    return Split(*(_patches(rng, *part) for part in zip(parts, sizes, strict=True)))


def _test(path: Path) -> Path:
    return path.with_name(path.name.replace("train", "test"))


def _images(path: Path) -> Iterator[np.ndarray]:
    """Yield the images of a tar file as grey levels, sorted by name."""
    from PIL import Image

    with tarfile.open(path) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            if member.name.endswith(".jpg"):
                yield np.rint(np.asarray(Image.open(tar.extractfile(member))) @ GREY)


def _patches(rng: np.random.Generator, images: list[np.ndarray], size: int) -> np.ndarray:
    """Draw `size` patches from random places of random images, in random order."""
    counts = np.bincount(rng.integers(len(images), size=size), minlength=len(images))
    drawn = [_cut(rng, image, count) for image, count in zip(images, counts, strict=True)]
    return rng.permutation(np.concatenate(drawn))


def _cut(rng: np.random.Generator, image: np.ndarray, count: int) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(image, (SIDE, SIDE))
    rows, columns = (rng.integers(length, size=count) for length in windows.shape[:2])
    patches = windows[rows, columns].reshape(count, -1)
    patches = (patches + rng.random(patches.shape)) / 256
    patches -= patches.mean(1, keepdims=True)
    return patches[:, :-1].astype(np.float32)
