"""A small run of the comparison of posteriors."""

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import vae  # noqa: E402
from datasets import Split  # noqa: E402
from measuring.bits import estimate_mean  # noqa: E402


def test_a_small_run(tmp_path, monkeypatch):
    rows = np.random.default_rng(0).integers(0, 2, (250, 28, 28), dtype=np.uint8)
    monkeypatch.setattr(vae, "images", lambda name, folder: Split(*np.split(rows, [200, 225])))
    sizes = {"num_latents": 2, "hidden": (8,), "flow_hidden": (4,), "context_dim": 3}
    options = {
        "layers": (0, 1),
        "epochs": 1,
        "warm_up": (0.5,),
        "num_samples": 3,
        "max_images": 100,
    }
    vae.main(vae.Config(**sizes, **options, out=tmp_path, runs=tmp_path / "runs"))
    found = json.loads((tmp_path / "vae.json").read_text())["results"]
    diagonal, flow = found["diagonal"], found["iaf_1"]
    for name in ("bound", "bound_3"):
        gain = flow[name]["mean"] - diagonal[name]["mean"]
        np.testing.assert_allclose(flow[f"gain_{name}"]["mean"], gain, rtol=1e-9)
    assert -784 < diagonal["bound"]["mean"] < diagonal["bound_3"]["mean"] < 0
    assert (tmp_path / "vae.png").exists()


def test_the_error_of_a_mean():
    mean, error = estimate_mean(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose((mean, error), (2, 1 / np.sqrt(3)))
