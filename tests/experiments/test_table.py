"""The benchmark tables of the guide agree with the results files."""

import json

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import binary_table  # noqa: E402
import table  # noqa: E402
from measuring.report import RESULTS_PAGE  # noqa: E402
from measuring.tables import core_hours, with_table  # noqa: E402

CPU = {"machine": "2-core x86_64 CPU"}


def test_the_guide_has_the_table_of_the_results():
    text = RESULTS_PAGE.read_text()
    assert with_table(text, table.table(), table.BEGIN, table.END) == text


def test_scores_stand_in_their_columns(tmp_path):
    score = {"nats": 0.61234, "two_standard_errors": 0.0123}
    run = {"dataset": "power", "model": "nsf", "test": score, "epochs": 14}
    (tmp_path / "density").mkdir()
    (tmp_path / "density/power_nsf.json").write_text(json.dumps({"results": run}))
    gaussians = {"power": score, "mnist": {"nats": -1366.84, "two_standard_errors": 1.44}}
    (tmp_path / "gaussians.json").write_text(json.dumps({"results": {"test": gaussians}}))
    lines = table.table(tmp_path).splitlines()
    assert lines[0] == "|  | POWER | MNIST, logits |"
    assert "| afflow: Gaussian | 0.61 ± 0.01 | -1366.8 ± 1.4 |" in lines
    assert "| afflow: splines | 0.61 ± 0.01 (14 epochs) |  |" in lines
    assert not any("affine" in line for line in lines)


def test_only_what_is_between_the_markers_changes():
    text = f"a\n{table.BEGIN}old\n{table.END}b\n"
    replaced = with_table(text, "new\n", table.BEGIN, table.END)
    assert replaced == f"a\n{table.BEGIN}new\n{table.END}b\n"


def test_the_guide_has_the_binary_table_of_the_results():
    text = RESULTS_PAGE.read_text()
    rows = binary_table.markdown_table()
    assert with_table(text, rows, binary_table.BEGIN, binary_table.END) == text


@pytest.mark.parametrize(
    ("results", "machine", "cost"),
    [
        ({"seconds": 3600}, "2-core x86_64 CPU", "2 h"),
        ({"seconds": 8.4537}, "2-core x86_64 CPU", "0.0047 h"),
        ({"seconds": 221_000}, "16-core x86_64 CPU", "980 h"),
        ({"core_seconds": 3600}, "2-core x86_64 CPU", "1 h"),
        ({}, "2-core x86_64 CPU", ""),
        ({"seconds": 3600}, "NVIDIA H200, 16-core x86_64 CPU", ""),
        ({"core_seconds": 3600}, "NVIDIA H200, 16-core x86_64 CPU", ""),
    ],
)
def test_the_cost_is_the_time_of_all_cores(results, machine, cost):
    assert core_hours({"environment": {"machine": machine}, "results": results}) == cost


def test_a_cost_is_in_the_cell_of_its_score(tmp_path):
    score = {"nats": -13.2, "two_standard_errors": 0.05}
    results = {"test": score, "epochs": 6, "seconds": 1800}
    content = {"environment": CPU, "results": results}
    assert table.trained(content) == "-13.20 ± 0.05 (6 epochs, 1 h)"
    (tmp_path / "adult-made.json").write_text(json.dumps(content))
    assert binary_table.cell("adult", "made", tmp_path) == "-13.20 ± 0.05 (-13.12, 1 h)"
    assert binary_table.cell("adult", "nade", tmp_path) == ""
