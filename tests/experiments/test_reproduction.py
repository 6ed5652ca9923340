"""A second training from a results file: settings, resumption and verdict."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import binary_density  # noqa: E402
import density_estimation  # noqa: E402
import real_density  # noqa: E402
import table  # noqa: E402
from datasets import Split, binary  # noqa: E402
from measuring.stopwatch import Stopwatch, claim  # noqa: E402
from recipes.benchmarks import Settings, build  # noqa: E402
from recipes.cycles import Fitted, train_cycle  # noqa: E402
from recipes.folds import read_folds, write_folds  # noqa: E402
from recipes.reproduction import find_cycles, find_file, rebuild, reproduce  # noqa: E402

import afflow  # noqa: E402

RESULTS = Path(table.__file__).parent / "results"
SMALL = Settings(num_layers=1, hidden=(5,), residual=False, lu=False, batch_size=8, cycles=(1, 2))


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """Return a folder of results with one epoch of an FVSBN, and its results file."""
    folder = tmp_path_factory.mktemp("results")
    config = binary_density.Config("digits", ("fvsbn",), epochs=1, seed=3, out=folder / "binary")
    settings = binary_density.settings_of("fvsbn", config)
    binary_density.run("fvsbn", settings, binary("digits"), config)
    return folder, folder / "binary" / "digits-fvsbn.json"


def test_a_figure_is_reproduced_to_the_last_bit(committed, tmp_path):
    found = reproduce("digits", "fvsbn", committed[0], tmp_path)
    assert found.agrees
    assert found.committed == found.new
    assert str(found).endswith("within two standard errors of the new one: yes.")
    new = json.loads((tmp_path / "binary" / "digits-fvsbn.json").read_text())
    old = json.loads(committed[1].read_text())
    assert new["results"]["history"] == old["results"]["history"]
    assert (tmp_path / "checkpoints" / "binary" / "digits-fvsbn" / "seconds").exists()


def test_a_figure_five_standard_errors_away_is_not(committed, tmp_path):
    content = json.loads(committed[1].read_text())
    test = content["results"]["test"]
    test["nats"] += 2.5 * test["two_standard_errors"]
    content["results"]["parameters"] += 1
    (tmp_path / "results" / "binary").mkdir(parents=True)
    (tmp_path / "results" / "binary" / "digits-fvsbn.json").write_text(json.dumps(content))
    found = reproduce("digits", "fvsbn", tmp_path / "results", tmp_path / "out")
    assert not found.agrees
    assert "of the new one: no. The models have 4097 and 4096 parameters." in str(found)


def test_checkpoints_of_other_settings_are_refused(committed, tmp_path):
    reproduce("digits", "fvsbn", committed[0], tmp_path / "out")
    content = json.loads(committed[1].read_text())
    content["config"]["seed"] += 1
    (tmp_path / "results" / "binary").mkdir(parents=True)
    (tmp_path / "results" / "binary" / "digits-fvsbn.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="another seed"):
        reproduce("digits", "fvsbn", tmp_path / "results", tmp_path / "out")


def test_the_committed_results_are_not_overwritten(committed):
    folder, _ = committed
    for out in (folder, folder / "binary"):
        with pytest.raises(ValueError, match="Expected a folder outside"):
            reproduce("digits", "fvsbn", folder, out)


def test_a_reproduction_needs_a_data_set_and_a_model():
    with pytest.raises(ValueError, match="both --reproduce and --model"):
        table.main(table.Config(reproduce="dna"))


def test_a_missing_figure_names_the_others(committed):
    with pytest.raises(ValueError, match="there are files of fvsbn"):
        find_file("digits", "nade", committed[0])
    with pytest.raises(ValueError, match="there are files of digits"):
        find_file("dna", "nade", committed[0])
    assert find_file("red_wine", "maf", RESULTS) == RESULTS / "real" / "red_wine.json"
    assert find_file("power", "nsf", RESULTS) == RESULTS / "density" / "power_nsf.json"


@dataclass(frozen=True)
class Fields:
    """Settings, one of which is newer than some results files."""

    hidden: tuple[int, ...]
    l2: float = 0.5


def test_older_files_have_the_values_without_effect():
    assert rebuild(Fields, {"hidden": [7, 8]}) == Fields((7, 8), 0.0)
    assert rebuild(Fields, {"hidden": [7], "l2": 0.1}) == Fields((7,), 0.1)
    with pytest.raises(ValueError, match=r"unknown fields \['width'\] and without \['hidden'\]"):
        rebuild(Fields, {"width": 7})
    with pytest.raises(ValueError, match=r"unknown fields \[\] and without \['hidden'\]"):
        rebuild(Fields, {"l2": 0.1})


def test_cycles_that_did_not_run_are_left_out():
    assert find_cycles((2, 4, 8, 16), {"epochs": 14}) == (2, 4, 8)
    assert find_cycles((60,), {"epochs": 59}) == (60,)
    assert find_cycles((30, 30), {"epochs": 29, "cycles": 2}) == (30, 30)


def test_all_committed_settings_are_read():
    for path in (RESULTS / "density").glob("*.json"):
        rebuild(Settings, json.loads(path.read_text())["config"])
    for path in (RESULTS / "binary").glob("*.json"):
        rebuild(binary_density.Settings, json.loads(path.read_text())["results"]["settings"])
    folders = {"data_dir": None, "out": Path(), "runs": None}
    for path in (RESULTS / "real").glob("*.json"):
        rebuild(real_density.Config, json.loads(path.read_text())["config"] | folders)


def test_only_unfinished_folds_are_run(tmp_path):
    config = real_density.Config(hidden=2, num_components=2, epochs=1, runs=tmp_path)
    folder = tmp_path / "red_wine-maf"
    x = np.random.default_rng(0).normal(size=(60, 2))
    done = [np.full(6, float(number)) for number in range(9)]
    write_folds(done, folder)
    (folder / "seconds").write_text("100.0")
    found, seconds = real_density.score_folds("maf", x, config)
    np.testing.assert_array_equal(found[:9], done)
    assert np.isfinite(found[9]).all()
    assert seconds > 100
    np.testing.assert_array_equal(read_folds(folder), found)
    with pytest.raises(ValueError, match="another hidden"):
        real_density.score_folds("maf", x, replace(config, hidden=3))


def test_a_killed_cycle_resumes_from_its_checkpoints(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    data, config = Split(x, x, x), density_estimation.Config("power", "maf", runs=tmp_path)
    first = Fitted(build("maf", SMALL, x, config.seed), [], [])
    folder = tmp_path / "power_maf" / "cycle"
    claim(folder.parent, asdict(SMALL) | {"seed": config.seed})
    killed = train_cycle(first, 1, config.seed, SMALL, data, folder)
    (folder / "0" / "seconds").write_text("100.0")
    options = {"runs": tmp_path, "resume": True}
    other = density_estimation.Config("power", "maf", seed=1, **options)
    with pytest.raises(ValueError, match="another seed"):
        density_estimation.train(other, SMALL, data)
    resumed = density_estimation.Config("power", "maf", **options)
    found = density_estimation.train(resumed, SMALL, data)
    assert found.core_seconds > 100
    assert found.train[:1] == killed.train
    assert not folder.exists()
    train_cycle(first, 1, 1, SMALL, data, folder)  # of another seed, and not to be resumed
    anew = density_estimation.train(config, SMALL, data)
    assert anew.core_seconds < 100
    for leaf, expected in zip(jax.tree.leaves(anew.flow), jax.tree.leaves(found.flow), strict=True):
        np.testing.assert_array_equal(leaf, expected)


def test_a_stopwatch_sums_over_processes(tmp_path):
    watch = Stopwatch(tmp_path / "run")
    watch.before = 60.0
    watch.keep()
    assert Stopwatch(tmp_path / "run").read() > 60
    assert Stopwatch().read() < 60


def test_a_stopwatch_reports_losses_by_size():
    report = Stopwatch().report(afflow.training.History([6.0, 4.0], [8.0, 2.0], 1), 2)
    assert report.pop("core_seconds") >= 0
    assert report == {"train": [3.0, 2.0], "validation": [4.0, 1.0], "best_epoch": 1}


def test_a_stopwatch_ends_a_fit_and_keeps_the_time(tmp_path):
    watch = Stopwatch(tmp_path / "run")
    is_over = watch.stop_after(1.0)
    assert not is_over(None)
    watch.before = 60.0
    assert is_over(None)
    assert Stopwatch(tmp_path / "run").read() > 60
