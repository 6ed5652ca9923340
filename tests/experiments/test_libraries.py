"""The table of tasks in several libraries: each task runs, and its lines are counted."""

import json

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("tyro")

import libraries  # noqa: E402


def test_lines_are_counted_below_the_docstring():
    assert libraries.count_lines(libraries.tasks.table_by_afflow) == 6


def test_a_task_becomes_a_line_of_the_table(tmp_path, monkeypatch):
    monkeypatch.setattr(libraries, "PAGE", tmp_path / "page.md")
    config = libraries.Config(tasks=("anomalies",), seeds=1, out=tmp_path / "out.json")
    libraries.main(config)
    results = json.loads(config.out.read_text())["results"]
    ours, theirs = (results[f"anomalies, {name}"] for name in ("afflow", "scikit-learn"))
    assert ours["lines"] == theirs["lines"] == 6
    assert min(ours["scores"] + theirs["scores"]) > 0.9
    lines = libraries.table(results).splitlines()
    found = [line for line in lines if line.startswith("| malignant")]
    assert f"| {np.mean(ours['scores']):.3f} |" in found[0]
    assert len(found) == 1


def test_no_line_without_a_row_of_ours():
    rows = {"guide, numpyro": {"scores": [1.0], "seconds": [1.0], "lines": 1}}
    assert "guide" not in libraries.table(rows)
    with pytest.raises(KeyError):
        libraries.measure("guide", "sbi", libraries.Config(seeds=1))
