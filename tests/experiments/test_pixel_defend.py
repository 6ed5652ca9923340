"""A defended classifier: its training, the attacks on it, the threshold and a small run."""

import json
from functools import cache

import jax
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import pixel_defend  # noqa: E402
from datasets import Split  # noqa: E402
from recipes.attacks import (  # noqa: E402
    attack_in_steps,
    attack_once,
    classify,
    find_loss,
    fit_classifier,
)
from recipes.defences import Outcome, choose_threshold, summarize  # noqa: E402


def make_images(size, seed=0):
    """Return images of 8 x 6 levels whose upper or lower half is brighter, and the half."""
    rng = np.random.default_rng(seed)
    halves = rng.integers(0, 2, size).astype(np.uint8)
    levels = rng.integers(0, 140, (size, 8, 6))
    levels[halves == 0, :4] += 60
    levels[halves == 1, 4:] += 60
    return levels.astype(np.uint8), halves


@cache
def classifier():
    """Return a classifier of the halves."""
    return fit_classifier(*make_images(400), epochs=8, batch_size=50)


def make_outcome(p_values, hits, purified_hits):
    """Return an outcome without images."""
    rest = {"images": None, "purified": None, "purified_p_values": np.ones(len(hits))}
    known = {"p_values": np.array(p_values), "hits": np.array(hits, bool)}
    black_and_white = {"black_and_white_hits": np.zeros(len(hits), bool)}
    return Outcome(**rest, **known, **black_and_white, purified_hits=np.array(purified_hits, bool))


def test_a_classifier_learns_which_half_is_brighter():
    levels, halves = make_images(300, seed=1)
    assert (classify(classifier(), levels) == halves).mean() > 0.95


@pytest.mark.parametrize("attack", [attack_once, attack_in_steps])
def test_attacks_stay_within_the_radius_and_raise_the_loss(attack):
    levels, halves = make_images(100, seed=2)
    attacked = attack(classifier(), levels, halves, 40)
    change = attacked.astype(int) - levels
    assert attacked.dtype == np.uint8
    assert np.abs(change).max() == 40
    assert (change[levels == 0] >= 0).all()
    assert (classify(classifier(), attacked) == halves).mean() < 0.5
    np.testing.assert_array_equal(attack(classifier(), levels, halves, 0), levels)


def test_one_step_follows_the_sign_of_the_gradient():
    levels, halves = make_images(5, seed=3)
    change = attack_once(classifier(), levels, halves, 10).astype(int) - levels
    gradient = jax.grad(find_loss, argnums=1)(classifier(), levels.astype(float), halves)
    free = (levels >= 10) & (levels <= 245)
    np.testing.assert_array_equal(change[free], 10 * np.sign(gradient)[free])


def test_small_steps_raise_the_loss_more_than_one_large_step():
    levels, halves = make_images(100, seed=4)
    once, often = (
        find_loss(classifier(), attack(classifier(), levels, halves, 30).astype(float), halves)
        for attack in (attack_once, attack_in_steps)
    )
    assert often > once > find_loss(classifier(), levels.astype(float), halves)


def test_the_threshold_has_the_best_accuracy():
    clean = make_outcome([0.2, 0.5, 0.9, 1.0], [1, 1, 1, 1], [1, 1, 0, 0])
    attacked = make_outcome([0.1, 0.1, 0.3, 0.6], [0, 0, 0, 0], [1, 1, 1, 1])
    threshold = choose_threshold({"clean": clean, "FGSM": attacked})
    assert threshold == 0.6
    assert clean.choose_hits(threshold).tolist() == [True] * 4
    found = summarize(attacked, threshold)
    assert found["adaptive"]["accuracy"] == found["purified"]["accuracy"] == 1
    half = summarize(make_outcome([0.5] * 4, [1, 1, 0, 0], [0, 0, 0, 0]), 0.4)["adaptive"]
    assert half["accuracy"] == 0.5
    assert half["standard_error"] == pytest.approx(np.sqrt(0.25 / 3))
    harmful = make_outcome([0.1, 0.2], [1, 1], [0, 0])
    assert choose_threshold({"clean": harmful}) == 0  # nothing is purified


def test_rows_are_thinned_evenly_and_mapped_in_batches():
    rows = np.arange(250)
    np.testing.assert_array_equal(pixel_defend.thin(rows, 4), [0, 83, 166, 249])
    np.testing.assert_array_equal(pixel_defend.thin(rows, 300), rows)
    sizes = pixel_defend.in_batches(lambda part: part * len(part), rows, "rows")
    np.testing.assert_array_equal(sizes, rows * np.repeat([100, 50], [200, 50]))


def test_a_small_run_writes_accuracies_and_pictures(tmp_path, monkeypatch):
    parts = [make_images(size, seed) for seed, size in enumerate((300, 130, 110))]
    x, y = (Split(*rows) for rows in zip(*parts, strict=True))
    monkeypatch.setattr(pixel_defend, "images", lambda *_: x)
    monkeypatch.setattr(pixel_defend, "classes", lambda *_, **__: y)
    monkeypatch.setattr(pixel_defend, "keep_programs", lambda: None)
    levels = afflow.conditionals.DiscretizedLogistics(1)
    network = afflow.MADE(48, levels.num_params, (8,), rngs=nnx.Rngs(0))
    model = afflow.AutoregressiveModel(randomize(network), levels)
    afflow.save(afflow.models.Reshaped(model, (8, 6)), tmp_path / "model.zip")
    config = pixel_defend.Config(
        tmp_path / "model.zip", num_validation=100, num_test=100, num_reference=200, out=tmp_path
    )
    pixel_defend.main(config)
    results = json.loads((tmp_path / "mnist.json").read_text())["results"]
    assert results["attack_radius"] == results["defence_radius"] == 76
    for name in ("clean", "FGSM", "BIM"):
        found = results["test"][name]
        for defence in ("undefended", "black_and_white", "purified", "adaptive"):
            assert 0 <= found[defence]["accuracy"] <= 1
        given, purified = found["p_value_quartiles"].values()
        assert all(p >= q for p, q in zip(purified, given, strict=True))
    given, purified = results["test"]["clean"]["p_value_quartiles"].values()
    assert purified[1] > given[1]
    assert results["test"]["FGSM"]["undefended"]["accuracy"] < 0.2
    for picture in ("p_values", "images"):
        assert (tmp_path / f"mnist_{picture}.png").stat().st_size > 10_000
