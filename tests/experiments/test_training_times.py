"""The training times of libraries with default settings."""

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import out_of_the_box  # noqa: E402
from recipes.training_times import draw_times, find_points, has_times  # noqa: E402

RESULTS = {
    "wine maf afflow 0": {"mean": -1.0, "seconds": 2.0},
    "wine maf afflow 1": {"mean": -3.0, "seconds": 4.0},
    "wine maf afflow 2": {"mean": 99.0},
    "wine nsf zuko 0": {"mean": -5.0, "seconds": 30.0},
    "digits maf zuko 0": {"mean": 7.0},
}


def test_a_point_is_the_mean_of_the_seeds_with_a_time():
    assert find_points(RESULTS) == {"wine": {("maf", "afflow"): (3, -2), ("nsf", "zuko"): (30, -5)}}
    assert has_times(RESULTS)
    assert not has_times({"digits maf zuko 0": {"mean": 7.0}})


def test_the_picture_is_written(tmp_path):
    draw_times(RESULTS, tmp_path / "times.png")
    assert (tmp_path / "times.png").read_bytes().startswith(b"\x89PNG")


def test_entries_without_a_time_run_again_on_request():
    config = out_of_the_box.Config()
    assert out_of_the_box.is_missing(None, config)
    assert not out_of_the_box.is_missing({"mean": 1.0}, config)
    timed = out_of_the_box.Config(timed=True)
    assert out_of_the_box.is_missing({"mean": 1.0}, timed)
    assert not out_of_the_box.is_missing({"mean": 1.0, "seconds": 2.0}, timed)
