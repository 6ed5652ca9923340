"""The experiment with a TarFlow: a small run."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import tarflow  # noqa: E402
from datasets import Split  # noqa: E402

SIZES = {"patch": 2, "num_blocks": 2, "num_layers": 1, "width": 8, "num_heads": 2}


def test_a_small_run_learns_and_writes_its_results(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)

    def make_images(size):
        brightness = rng.normal(size=(size, 1, 1))
        return (brightness + 0.3 * rng.normal(size=(size, 4, 4))).astype(np.float32)

    data = Split(*map(make_images, (200, 50, 40)))
    monkeypatch.setattr(tarflow, "load", lambda config: data)
    monkeypatch.setattr(tarflow, "keep_programs", lambda: None)
    config = tarflow.Config(
        **SIZES,
        univariate="affine",
        batch_size=20,
        epochs=5,
        learning_rate=1e-2,
        out=tmp_path,
        runs=tmp_path,
    )
    tarflow.main(config)
    results = json.loads((tmp_path / "logit_affine.json").read_text())["results"]
    assert results["validation"][-1] < results["validation"][0] - 0.5
    assert abs(results["test_nats"] + results["validation"][-1]) < 3
    assert (tmp_path / "logit_affine.png").stat().st_size > 5_000
