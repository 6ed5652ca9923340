"""The binary sets of the NADE papers: rows of zeros and ones."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.digits import SIZES, binary_digits
from datasets.files import Folder, Split, checked, find

LAROCHELLE = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
DEBD = "https://github.com/arranger1044/DEBD (datasets/{name})"
PARTS = "train", "valid", "test"


class Published(NamedTuple):
    """The dimension of a set and the sizes of its parts, as published."""

    dim: int
    train: int
    validation: int
    test: int


BINARY = {
    "binarized_mnist": Published(784, 50_000, 10_000, 10_000),
    "adult": Published(123, 5_000, 1_414, 26_147),
    "connect4": Published(126, 16_000, 4_000, 47_557),
    "dna": Published(180, 1_600, 400, 1_186),
    "mushrooms": Published(112, 2_000, 500, 5_624),
    "nips": Published(500, 400, 100, 1_240),
    "digits": Published(64, *SIZES),
}


def binary(name: str, folder: Folder = None) -> Split:
    """Return a binary set with its published split (Larochelle and Murray 2011).

    The files are texts of zeros and ones, one for each part (`binarized_mnist_train.amat` and so
    on, `adult.train.data` and so on), or one `.npz` with all parts packed as bits. Some are sorted
    by class: shuffle them for training. `digits` needs no file.

    Args:
        name: one of `BINARY`.
        folder: the data folder, see `find`.

    Returns:
        Arrays `(N, D)` of zeros and ones, `uint8`.

    Raises:
        ValueError: for an unknown name, or a file of other sizes than the published ones.
    """
    if name not in BINARY:
        raise ValueError(f"Expected one of {sorted(BINARY)}, got {name!r}.")
    dim, *sizes = BINARY[name]
    split = binary_digits() if name == "digits" else _read(name, folder)
    return checked(name, split, sizes, dim)


def _read(name: str, folder: Folder) -> Split:
    if name == "binarized_mnist":
        text, packed = "binarized_mnist/binarized_mnist_train.amat", f"{name}/{name}_packed.npz"
        path = find(folder, [text, packed], LAROCHELLE)
    else:
        text, packed = f"{name}/{name}.train.data", f"nade_uci/{name}.npz"
        path = find(folder, [text, packed], DEBD.format(name=name))
    return _packed(path, BINARY[name].dim) if path.suffix == ".npz" else _texts(path)


def _texts(path: Path) -> Split:
    """Read the parts from texts whose names contain `train`, `valid` and `test`."""
    paths = [path.with_name(path.name.replace("train", part)) for part in PARTS]
    return Split(*map(_text, paths))


def _text(path: Path) -> np.ndarray:
    lines = path.read_text().replace(",", " ").splitlines()
    return np.array([line.split() for line in lines if line.strip()], np.uint8)


def _packed(path: Path, dim: int) -> Split:
    file = np.load(path)
    return Split(*(np.unpackbits(file[part], axis=1)[:, :dim] for part in PARTS))
