"""MNIST: handwritten digits, as integers and as logits."""

import gzip
from pathlib import Path

import numpy as np

from datasets.files import Folder, Split, checked, find

SIZES = 50_000, 10_000, 10_000
SOURCE = "http://yann.lecun.com/exdb/mnist (or https://storage.googleapis.com/cvdf-datasets/mnist)"
MARGIN = 1e-6


def mnist(
    folder: Folder = None,
    sizes: tuple[int, int, int] = SIZES,
    *,
    name: str = "mnist",
    source: str = SOURCE,
) -> Split:
    """Return the grey levels `(N, 784)`, `uint8`. The last training images are for validation.

    Args:
        folder: the data folder, see `find`.
        sizes: the number of images expected in each part.
        name: the name of the folder with the files, for a set in the format of MNIST.
        source: where to get the files.
    """
    rest, test = (_images(_file(folder, part, name, source)) for part in ("train", "t10k"))
    split = Split(rest[: sizes[0]], rest[sizes[0] :], test)
    return checked(name, split, sizes, 784)


def mnist_labels(folder: Folder = None, sizes: tuple[int, int, int] = SIZES) -> Split:
    """Return the digits `(N,)`, `uint8`, of the images of `mnist`.

    Args:
        folder: the data folder, see `find`.
        sizes: the number of images expected in each part.
    """
    rest, test = (_labels(_file(folder, part, kind="labels")) for part in ("train", "t10k"))
    split = Split(rest[: sizes[0]], rest[sizes[0] :], test)
    if tuple(map(len, split)) != tuple(sizes):
        raise ValueError(f"Expected {sizes} labels of mnist, got {[len(part) for part in split]}.")
    return split


def mnist_logits(folder: Folder = None, sizes: tuple[int, int, int] = SIZES) -> Split:
    r"""Return MNIST as modelled by Papamakarios et al. 2017 (arXiv:1705.07057, appendix D).

    $x = \mathrm{logit}(\alpha + (1 - 2\alpha)(v + u) / 256)$ for grey levels $v$ and uniform noise
    $u$, with $\alpha = 10^{-6}$.
    """
    rng = np.random.default_rng(42)
    return Split(*(logits(part, rng) for part in mnist(folder, sizes)))


def logits(levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return grey levels with noise from `rng`, as logits in float32."""
    p = MARGIN + (1 - 2 * MARGIN) * (levels + rng.random(levels.shape)) / 256
    return (np.log(p) - np.log1p(-p)).astype(np.float32)


def _file(
    folder: Folder, part: str, name: str = "mnist", source: str = SOURCE, kind: str = "images"
) -> Path:
    path = f"{name}/{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    return find(folder, [f"{path}.gz", path], source)


def _images(path: Path) -> np.ndarray:
    """Return the images `(N, D)` of a file in the IDX format."""
    pixels = _read(path, 3)
    return pixels.reshape(len(pixels), -1)


def _labels(path: Path) -> np.ndarray:
    """Return the labels `(N,)` of a file in the IDX format."""
    return _read(path, 1)


def _read(path: Path, num_axes: int) -> np.ndarray:
    """Return the bytes of a file in the IDX format: big-endian integers, the shape, then bytes."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    start = 4 * (1 + num_axes)
    magic, *shape = np.frombuffer(content[:start], ">i4")
    if magic != 2048 + num_axes or len(content) != start + np.prod(shape):
        kind = "images" if num_axes == 3 else "labels"
        raise ValueError(f"Expected an IDX file of {kind}, got {path.name} with other content.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def bits_per_dim(log_probs: np.ndarray, x: np.ndarray) -> float:
    """Return the bits per grey level, from log-densities `(N,)` of logits `x` `(N, 784)`.

    Because of the added noise, the result is an upper bound on the bits of the grey levels.
    """
    log_slope = np.log1p(-2 * MARGIN) + np.logaddexp(0, x) + np.logaddexp(0, -x)
    nats = log_probs + log_slope.sum(1, dtype=float)
    return float(8 - nats.mean() / (x.shape[1] * np.log(2)))
