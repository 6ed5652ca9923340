"""The density models by default: one fit, and the table of the results."""

import json

import numpy as np
import pytest

pytest.importorskip("tyro")
pytest.importorskip("sklearn")

import density_defaults  # noqa: E402
from datasets import Split  # noqa: E402
from measuring.report import RESULTS_PAGE  # noqa: E402
from measuring.tables import with_table  # noqa: E402


def test_a_score_is_that_of_the_test_rows():
    """Check the entropy of three bits of which the second and the third are equal."""
    bits = np.random.default_rng(0).integers(0, 2, (3000, 2)).astype(float)
    x = bits[:, [0, 1, 1]]
    found = density_defaults.score("fvsbn", Split(x[:2000], x[2000:2500], x[2500:]), 0)
    assert abs(found["mean"] + 2 * np.log(2)) < 0.02
    assert found["seconds"] > 0
    assert 1 <= found["epochs"] <= 100


def test_the_guide_has_the_table_of_the_results():
    results = json.loads(density_defaults.OUT.read_text())["results"]
    text, rows = RESULTS_PAGE.read_text(), density_defaults.table(results)
    assert with_table(text, rows, density_defaults.BEGIN, density_defaults.END) == text


def test_a_cell_has_the_mean_over_the_seeds():
    results = {"digits nade 0": {"mean": -20.0}, "digits nade 1": {"mean": -22.0}}
    results |= {"nips fvsbn 0": {"mean": -270.0}}
    lines = density_defaults.table(results).splitlines()
    assert lines[0] == "| | digits | nips |"
    assert "| `nade` | -21.00 ± 1.00 |  |" in lines
    assert "| `fvsbn` |  | -270.00 |" in lines
