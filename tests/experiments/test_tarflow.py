"""The experiment with a TarFlow: a small run."""

import json

import numpy as np
import pytest

import afflow

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import tarflow  # noqa: E402
from datasets import Split  # noqa: E402

SIZES = {"patch": 2, "num_blocks": 2, "num_layers": 1, "width": 8, "num_heads": 2}


def make_part(size, *, has_classes):
    """Return images of one brightness each, with a little noise, and the sign of the brightness."""
    rng = np.random.default_rng(size)
    brightness = rng.normal(size=(size, 1, 1))
    images = brightness + 0.3 * rng.normal(size=(size, 4, 4))
    classes = np.eye(2)[(brightness[:, 0, 0] > 0).astype(int)] if has_classes else None
    return tarflow.Part(images.astype(np.float32), classes)


@pytest.mark.parametrize("space", ["logit", "noise"])
def test_a_small_run_learns_and_writes_its_results(tmp_path, monkeypatch, space):
    parts = [make_part(size, has_classes=space == "noise") for size in (200, 50, 40)]
    monkeypatch.setattr(tarflow, "load", lambda config: Split(*parts))
    monkeypatch.setattr(tarflow, "keep_programs", lambda: None)
    training = {"batch_size": 20, "epochs": 5, "learning_rate": 1e-2}
    folders = {"out": tmp_path, "runs": tmp_path, "save": tmp_path / "flow.zip"}
    config = tarflow.Config(space, **SIZES, univariate="affine", **training, **folders)
    tarflow.main(config)
    results = json.loads((tmp_path / f"{space}_affine.json").read_text())["results"]
    times = results["sampling"]
    ratio = times["sample"]["median_ms"] / times["density"]["median_ms"]
    np.testing.assert_allclose(times["density_passes"], ratio)
    assert results["validation"][-1] < results["validation"][0] - 0.5
    if space == "logit":
        assert abs(results["test_nats"] + results["validation"][-1]) < 3
    assert (tmp_path / f"{space}_affine.png").stat().st_size > 5_000
    scores = tarflow.score(afflow.load(tmp_path / "flow.zip"), parts[2])
    assert scores.mean() == pytest.approx(results["test_nats"], rel=1e-6)


def test_classes_stay_with_their_images(tmp_path):
    write_mnist(tmp_path)
    data = tarflow.load(tarflow.Config("noise", max_images=7, data_dir=tmp_path))
    for part in data:  # the first pixel of an image is 25 times its digit
        assert part.images.shape == (7, 28, 28)
        digits = np.round((part.images[:, 0, 0] + 1) * 5.1)
        np.testing.assert_array_equal(digits, part.classes.argmax(1))
    logits = tarflow.load(tarflow.Config("logit", max_images=7, data_dir=tmp_path))
    assert logits.test.classes is None
    assert logits.test.images.shape == (7, 28, 28)


def write_mnist(folder):
    """Write files in the format of MNIST."""
    rng = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for part, size in (("train", 60_000), ("t10k", 10_000)):
        digits = rng.integers(0, 10, size).astype(np.uint8)
        images = np.zeros((size, 28, 28), np.uint8)
        images[:, 0, 0] = 25 * digits
        for kind, array in (("images", images), ("labels", digits)):
            header = np.array([2048 + array.ndim, *array.shape], ">i4").tobytes()
            path = folder / "mnist" / f"{part}-{kind}-idx{array.ndim}-ubyte"
            path.write_bytes(header + array.tobytes())
