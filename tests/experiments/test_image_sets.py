"""The image sets of the experiments, from files in their published formats."""

import numpy as np
import pytest
from datasets.images import RECORD, cifar10, classes, images


def test_cifar_is_read_from_its_binary_version(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    planes = rng.integers(0, 256, (60, 3, 32, 32)).astype(np.uint8)
    labels = rng.integers(0, 10, (60, 1)).astype(np.uint8)
    records = np.hstack([labels, planes.reshape(60, -1)])
    for i in range(5):
        (folder / f"data_batch_{i + 1}.bin").write_bytes(records[10 * i : 10 * i + 10].tobytes())
    (folder / "test_batch.bin").write_bytes(records[50:].tobytes())
    split = cifar10(tmp_path, size=10)
    assert [part.shape for part in split] == [(45, 32, 32, 3), (5, 32, 32, 3), (10, 32, 32, 3)]
    np.testing.assert_array_equal(split.test[3, 4, 5], planes[53, :, 4, 5])
    np.testing.assert_array_equal(split.validation[0, 0, 1], planes[45, :, 0, 1])
    (folder / "test_batch.bin").write_bytes(records[50:].tobytes()[:-1])
    with pytest.raises(ValueError, match=f"10 images of {RECORD} bytes in test_batch.bin"):
        cifar10(tmp_path, size=10)


def test_fashion_and_binarized_images_have_rows_and_columns(tmp_path):
    rng = np.random.default_rng(0)
    for part, size in (("train", 60_000), ("t10k", 10_000)):
        header = np.array([2051, size, 28, 28], ">i4").tobytes()
        pixels = rng.integers(0, 256, size * 784).astype(np.uint8).tobytes()
        (tmp_path / "fashion").mkdir(exist_ok=True)
        (tmp_path / "fashion" / f"{part}-images-idx3-ubyte").write_bytes(header + pixels)
    split = images("fashion", tmp_path)
    assert [part.shape for part in split] == [(size, 28, 28) for size in (50_000, 10_000, 10_000)]
    with pytest.raises(ValueError, match="Expected one of"):
        images("imagenet", tmp_path)
    with pytest.raises(FileNotFoundError, match="cifar"):
        images("cifar10", tmp_path)


def test_missing_labels_are_those_of_the_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="fashion-mnist"):
        classes("fashion", tmp_path)


def test_an_archive_is_unpacked_beside_files_that_are_there(tmp_path, monkeypatch):
    for name in ("mnist/old", "data/mnist/new", "data/power/deep/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "data.tar.gz").write_text("")
    fetch = pytest.importorskip("fetch")
    monkeypatch.setattr(fetch.pooch, "retrieve", lambda *_, **__: None)
    fetch.fetch_maf(tmp_path)
    files = sorted(
        str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()
    )
    assert files == ["mnist/new", "mnist/old", "power/deep/file"]
