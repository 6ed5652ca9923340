"""MNIST: handwritten digits, as integers and as logits."""

import gzip
from pathlib import Path

import numpy as np

import afflow
from datasets.files import Folder, Split, checked, find

SIZES = 50_000, 10_000, 10_000
SOURCE = "http://yann.lecun.com/exdb/mnist (or https://storage.googleapis.com/cvdf-datasets/mnist)"
PARTS = "train", "t10k"
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
    rest, test = (_read(_file(folder, part, "images", name, source)) for part in PARTS)
    split = Split(*(part.reshape(len(part), -1) for part in (*_cut(rest, sizes), test)))
    return checked(name, split, sizes, 784)


def mnist_digits(
    folder: Folder = None,
    sizes: tuple[int, int, int] = SIZES,
    *,
    name: str = "mnist",
    source: str = SOURCE,
) -> Split:
    """Return the digits `(N,)`, 0 to 9, of the images of `mnist`, by the arguments of `mnist`."""
    rest, test = (_read(_file(folder, part, "labels", name, source)) for part in PARTS)
    split = Split(*_cut(rest, sizes), test)
    if (got := tuple(map(len, split))) != tuple(sizes):
        raise ValueError(f"Expected {tuple(sizes)} labels of {name}, got {got}.")
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


def _cut(rows: np.ndarray, sizes: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    return rows[: sizes[0]], rows[sizes[0] :]


def _file(folder: Folder, part: str, kind: str, name: str, source: str) -> Path:
    path = f"{name}/{part}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    return find(folder, [f"{path}.gz", path], source)


def _read(path: Path) -> np.ndarray:
    """Return the array of a file in the IDX format: big-endian integers, then bytes.

    The first integer is 2048 plus the number of axes. The sizes of the axes follow.
    """
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    num_axes = 3 if "idx3" in path.name else 1
    magic, *shape = np.frombuffer(content, ">i4", 1 + num_axes)
    if magic != 2048 + num_axes or len(content) != 4 * (1 + num_axes) + np.prod(shape):
        raise ValueError(
            f"Expected an IDX file with {num_axes} axes, got {path.name} with other content."
        )
    return np.frombuffer(content, np.uint8, offset=4 * (1 + num_axes)).reshape(shape)


def bits_per_dim(log_probs: np.ndarray, x: np.ndarray) -> float:
    """Return the bits per grey level, from log-densities `(N,)` of logits `x` `(N, 784)`.

    Because of the added noise, the result is an upper bound on the bits of the grey levels.
    """
    log_slope = np.log1p(-2 * MARGIN) + np.logaddexp(0, x) + np.logaddexp(0, -x)
    nats = log_probs + log_slope.sum(1, dtype=float)
    return float(afflow.bits_per_dim(nats.mean(), x.shape[1]))
