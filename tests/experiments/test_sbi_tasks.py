"""The experiment on tasks of sbibm: a small run on made-up files."""

import json
from functools import partial

import numpy as np
import pytest

import afflow

pytest.importorskip("blackjax")
pytest.importorskip("sklearn")
pytest.importorskip("tyro")

import sbi_tasks  # noqa: E402
from simulators.sbibm import read_observation  # noqa: E402


def write_observation(folder, x, theta):
    """Write an observation and reference samples in the format of sbibm."""
    folder.mkdir(parents=True)
    names = ",".join(f"data_{i}" for i in range(len(x)))
    np.savetxt(folder / "observation.csv", x[None], delimiter=",", header=names, comments="")
    path = folder / "reference_posterior_samples.csv.bz2"
    np.savetxt(path, theta, delimiter=",", header=names, comments="")


@pytest.mark.parametrize("method", ["npe", "nle"])
def test_a_small_run_scores_an_observation(tmp_path, monkeypatch, method):
    x, theta = np.array([1.0, 2.0]), np.random.default_rng(0).normal(100.0, 1.0, (600, 2))
    write_observation(tmp_path / "sbibm" / "gaussian_mixture" / "num_observation_1", x, theta)
    monkeypatch.setattr(sbi_tasks, "FLOWS", {"maf": partial(afflow.maf)})
    monkeypatch.setattr(sbi_tasks, "keep_programs", lambda: None)
    config = sbi_tasks.Config(
        ("gaussian_mixture",), (method,), data_dir=tmp_path, small=True, out=tmp_path
    )
    sbi_tasks.main(config)
    path = tmp_path / "small" / f"gaussian_mixture_{method}.json"
    result = json.loads(path.read_text())["results"]["gaussian_mixture"][method]
    assert result["c2st"] > 0.99  # the made-up reference is far away
    assert set(result["validation"]) == {"maf, 0.1", "maf, 1.0"}
    assert result["chosen"] == min(result["validation"], key=result["validation"].get)


def test_files_are_found_in_both_layouts_and_missing_ones_are_named(tmp_path):
    x, theta = np.arange(2.0), np.arange(10.0).reshape(5, 2)
    write_observation(tmp_path / "sbibm/tasks/slcp/files/num_observation_2", x, theta)
    found = read_observation(tmp_path, "slcp", 2)
    assert (found[0] == x).all()
    assert (found[1] == theta).all()
    with pytest.raises(FileNotFoundError, match=r"slcp/num_observation_3: copy the folder sbibm"):
        read_observation(tmp_path, "slcp", 3)
