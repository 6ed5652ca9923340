"""Fetch the data sets that have a lasting address into a data folder.

    python experiments/fetch.py --data-dir FOLDER --what mnist

Needs pooch. The archive of the MAF paper is large: POWER, GAS, HEPMASS, MINIBOONE, BSDS300.
The other sets come from where `datasets` says when their files are missing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pooch
import tyro

MAF_ARCHIVE = "https://zenodo.org/records/1161203/files/data.tar.gz"
MAF_MD5 = "md5:9b9c9b0375315ad270eba4ce80c093ab"
MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_MD5 = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
}


@dataclass(frozen=True)
class Config:
    """What to fetch, and where to."""

    data_dir: Path
    what: Literal["maf", "mnist"]


def fetch_maf(folder: Path, url: str = MAF_ARCHIVE, known_hash: str = MAF_MD5) -> None:
    """Fetch and unpack the archive; its files then lie in `folder` as `datasets` wants them."""
    unpack = pooch.Untar(extract_dir=".")
    pooch.retrieve(url, known_hash, "data.tar.gz", folder, processor=unpack, progressbar=True)
    for part in (folder / "data").iterdir():
        part.rename(folder / part.name)
    (folder / "data").rmdir()
    (folder / "data.tar.gz").unlink()


def fetch_mnist(folder: Path, url: str = MNIST) -> None:
    """Fetch the images of MNIST."""
    for name, known_hash in MNIST_MD5.items():
        pooch.retrieve(url + name, known_hash, name, folder / "mnist", progressbar=True)


def main(config: Config) -> None:
    """Fetch one of them."""
    {"maf": fetch_maf, "mnist": fetch_mnist}[config.what](config.data_dir)


if __name__ == "__main__":
    main(tyro.cli(Config))
