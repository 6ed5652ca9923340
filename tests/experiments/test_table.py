"""The benchmark tables of the guide agree with the results files."""

import json

import binary_table
import table
from measuring.report import RESULTS_PAGE


def test_the_guide_has_the_table_of_the_results():
    text = RESULTS_PAGE.read_text()
    assert table.with_table(text, table.table()) == text


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
    assert table.with_table(text, "new\n") == f"a\n{table.BEGIN}new\n{table.END}b\n"


def test_the_guide_has_the_binary_table_of_the_results():
    text = RESULTS_PAGE.read_text()
    rows = binary_table.markdown_table()
    assert table.with_table(text, rows, binary_table.BEGIN, binary_table.END) == text
