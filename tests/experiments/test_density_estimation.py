"""The benchmark of density estimation: settings and checkpoints."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import afflow

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import density_estimation as runs  # noqa: E402
from recipes.benchmarks import PAPER, Settings, build  # noqa: E402
from registry import randomize  # noqa: E402

SMALL = Settings(num_layers=2, hidden=(5,), residual=False)


def test_a_preset_is_changed_by_what_is_given():
    config = runs.Config("power", "nsf", preset="paper", hidden=(7,), cycles=(1, 2))
    settings = runs.settings_of(config)
    paper = PAPER["power", "nsf"]
    assert (settings.hidden, settings.cycles) == ((7,), (1, 2))
    assert (settings.num_layers, settings.learning_rate) == (10, paper.learning_rate)


@pytest.mark.parametrize("model", ["maf", "nsf", "mixture"])
def test_a_checkpoint_gives_back_the_flow_and_its_course(tmp_path, model):
    x = np.random.default_rng(0).normal(size=(9, 3))
    flow = randomize(build(model, SMALL, x, seed=1))
    fitted = runs.Fitted(flow, [2.0, 1.0], [2.5, 1.5], 12.0, 2)
    path = tmp_path / "runs" / "run.npz"
    runs.write_checkpoint(fitted, path)
    got = runs.read_checkpoint(build(model, SMALL, x, seed=2), path)
    assert got[1:] == fitted[1:]
    assert jax.tree.structure(got.flow) == jax.tree.structure(build(model, SMALL, x, seed=2))
    for leaf, expected in zip(jax.tree.leaves(got.flow), jax.tree.leaves(flow), strict=True):
        np.testing.assert_array_equal(leaf, expected)


def test_no_cycle_begins_that_would_end_too_late(monkeypatch, tmp_path):
    def cycle(fitted, epochs, *rest):
        losses = [1.0] * (len(fitted.train) + epochs)
        return runs.Fitted(fitted.flow, losses, losses, 60.0 * len(losses), fitted.cycles + 1)

    monkeypatch.setattr(runs, "train_cycle", cycle)
    x = np.zeros((9, 3)) + np.arange(9.0)[:, None]
    config = runs.Config("power", "maf", minutes=7.5, runs=tmp_path)
    settings = Settings(2, (5,), residual=False, cycles=(1, 2, 4, 8))
    assert runs.train(config, settings, runs.Split(x, x, x)).cycles == 3
    resumed = runs.Config("power", "maf", minutes=30, resume=True, runs=tmp_path)
    assert len(runs.train(resumed, settings, runs.Split(x, x, x)).train) == 15


def test_a_run_resumes_with_its_own_settings_only(monkeypatch, tmp_path):
    def cycle(fitted, epochs, *rest):
        losses = fitted.train + [1.0] * epochs
        return runs.Fitted(fitted.flow, losses, losses, 1.0, fitted.cycles + 1)

    monkeypatch.setattr(runs, "train_cycle", cycle)
    x = np.zeros((9, 3)) + np.arange(9.0)[:, None]
    split, settings = runs.Split(x, x, x), Settings(2, (5,), residual=False, cycles=(1, 2))
    options = {"runs": tmp_path, "resume": True}
    assert len(runs.train(runs.Config("power", "maf", **options), settings, split).train) == 3
    with pytest.raises(ValueError, match="another seed"):
        runs.train(runs.Config("power", "maf", seed=1, **options), settings, split)
    other = replace(settings, learning_rate=0.5)
    with pytest.raises(ValueError, match="another learning_rate"):
        runs.train(runs.Config("power", "maf", **options), other, split)
    anew = runs.Config("power", "maf", seed=1, runs=tmp_path)
    assert len(runs.train(anew, other, split).train) == 3


def test_the_best_flow_of_all_cycles_is_kept(monkeypatch, tmp_path):
    x = np.zeros((9, 3)) + np.arange(9.0)[:, None]
    first, second = (build("maf", SMALL, x, seed=seed) for seed in (0, 1))
    for loss, expected in ((0.5, second), (2.0, first)):
        history = afflow.training.History([1.0], [loss], 0)
        monkeypatch.setattr(afflow, "fit", lambda *_, h=history, **__: (second, h))
        start = runs.Fitted(first, [1.0], [1.0], 0.0, 1)
        found = runs.train_cycle(start, 1, 0, SMALL, runs.Split(x, x, x), tmp_path / str(loss))
        assert found.flow is expected
        assert found.validation == [1.0, loss]
