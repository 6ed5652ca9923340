"""Images as integers: binarized MNIST, MNIST, Fashion-MNIST and CIFAR-10."""

from pathlib import Path

import numpy as np

from datasets.binary import binary
from datasets.files import Folder, Split, find
from datasets.mnist import SOURCE, mnist, mnist_digits

FASHION = "https://github.com/zalandoresearch/fashion-mnist (data/fashion)"
CIFAR = "https://www.cs.toronto.edu/~kriz/cifar.html (CIFAR-10 binary version)"
RECORD = 1 + 3 * 32 * 32  # the bytes of a label and an image
LEVELS = {"binarized_mnist": 2, "mnist": 256, "fashion": 256, "cifar10": 256}


def images(name: str, folder: Folder = None) -> Split:
    """Return the images `(N, H, W)` or `(N, H, W, C)`, `uint8`, with the usual split.

    The last tenth or so of the training images is for validation: 10,000 images of MNIST and
    Fashion-MNIST, 5,000 of CIFAR-10.

    Args:
        name: one of `LEVELS`.
        folder: the data folder, see `find`.

    Raises:
        ValueError: for an unknown name, or a file with other sizes than the published ones.
    """
    if name not in LEVELS:
        raise ValueError(f"Expected one of {sorted(LEVELS)}, got {name!r}.")
    if name == "cifar10":
        return cifar10(folder)
    if name == "binarized_mnist":
        rows = binary(name, folder)
    elif name == "fashion":
        rows = mnist(folder, name="fashion", source=FASHION)
    else:
        rows = mnist(folder)
    return Split(*(part.reshape(-1, 28, 28) for part in rows))


def classes(name: str, folder: Folder = None) -> Split:
    """Return the classes `(N,)`, 0 to 9, of the images of MNIST or Fashion-MNIST."""
    return mnist_digits(folder, name=name, source=FASHION if name == "fashion" else SOURCE)


def cifar10(folder: Folder = None, size: int = 10_000) -> Split:
    """Return CIFAR-10 from the six files of its binary version, `size` images in each."""
    names = [f"cifar-10-batches-bin/data_batch_{i}.bin" for i in range(1, 6)]
    names.append("cifar-10-batches-bin/test_batch.bin")
    parts = [_read(find(folder, [name, Path(name).name], CIFAR), size) for name in names]
    rest = np.concatenate(parts[:5])
    return Split(rest[: -size // 2], rest[-size // 2 :], parts[5])


def _read(path: Path, size: int) -> np.ndarray:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if len(content) != size * RECORD:
        raise ValueError(
            f"Expected {size} images of {RECORD} bytes in {path.name}, got {len(content)} bytes."
        )
    planes = content.reshape(size, RECORD)[:, 1:].reshape(size, 3, 32, 32)
    return np.moveaxis(planes, 1, -1)
