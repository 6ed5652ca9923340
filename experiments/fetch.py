"""Fetch the data sets with a permanent address into a data folder.

    python experiments/fetch.py --data-dir FOLDER --what mnist

Needs pooch. The archive of the MAF paper is large. It holds POWER, GAS, HEPMASS, MINIBOONE and
BSDS300. For the other sets, the errors of `datasets` say where to get the files.
"""

import shutil
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
    """The data set to fetch, and the data folder."""

    data_dir: Path
    what: Literal["maf", "mnist"]


def fetch_maf(folder: Path, url: str = MAF_ARCHIVE, known_hash: str = MAF_MD5) -> None:
    """Fetch and unpack the archive, and move its files to their paths in `folder`."""
    unpack = pooch.Untar(extract_dir=".")
    pooch.retrieve(url, known_hash, "data.tar.gz", folder, processor=unpack, progressbar=True)
    unpacked = folder / "data"
    for part in [path for path in unpacked.rglob("*") if path.is_file()]:
        place = folder / part.relative_to(unpacked)  # beside files that are there already
        place.parent.mkdir(parents=True, exist_ok=True)
        part.replace(place)
    shutil.rmtree(unpacked)
    (folder / "data.tar.gz").unlink()


def fetch_mnist(folder: Path, url: str = MNIST) -> None:
    """Fetch the images of MNIST."""
    for name, known_hash in MNIST_MD5.items():
        pooch.retrieve(url + name, known_hash, name, folder / "mnist", progressbar=True)


def main(config: Config) -> None:
    """Fetch the chosen data set."""
    {"maf": fetch_maf, "mnist": fetch_mnist}[config.what](config.data_dir)


if __name__ == "__main__":
    main(tyro.cli(Config))
