"""Distillation experiments: the mirrored student, its start, and small runs."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import distillation  # noqa: E402
from datasets.speech import CODEC, Recordings, Speech  # noqa: E402
from recipes import distilled_speech, spoken_flows, spoken_windows  # noqa: E402
from recipes.benchmarks import Settings, build  # noqa: E402
from recipes.students import mirror, read_noise, start_layers, unstack  # noqa: E402
from registry import randomize  # noqa: E402

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def teacher():
    """Return an untrained flow with random weights and linear maps between its layers."""
    rows = np.random.default_rng(0).normal(3.0, 2.0, (20, 3))
    return randomize(build("maf", Settings(2, (6,)), rows, 0), 0.3)


def test_a_mirror_keeps_the_maps_between_layers(teacher):
    student = mirror(teacher, (7,), 1)
    for theirs, ours in zip(
        *(unstack(f.bijector.bijectors[0]) for f in (teacher, student)), strict=True
    ):
        x = jnp.arange(3.0)
        np.testing.assert_array_equal(ours.bijectors[1].forward(x), theirs.bijectors[1].forward(x))
    z = jnp.array([0.3, -1.0, 2.0])
    mixed = z
    for layer in unstack(teacher.bijector.bijectors[0]):
        mixed = layer.bijectors[1].forward(mixed)
    mixed = teacher.bijector.bijectors[1].forward(mixed)
    np.testing.assert_allclose(student.bijector.forward(z), mixed, rtol=1e-12)


def test_the_noise_of_a_value_at_a_prefix(teacher):
    layer = unstack(teacher.bijector.bijectors[0])[0].bijectors[0]
    y, other = jnp.array([0.3, -1.0, 2.0]), jnp.array([5.0, 0.4, -2.0])
    got = read_noise(layer, y, other)
    for t in range(3):
        np.testing.assert_allclose(got[t], layer.inverse(y.at[t].set(other[t]))[t], rtol=1e-12)


def test_a_start_brings_the_student_close(teacher):
    student, options = mirror(teacher, (32,), 1), {"num_steps": 150, "max_epochs": 2}
    started, history = start_layers(
        teacher, student, 64, key=KEY, learning_rate=0.02, progress=False, **options
    )
    assert history.train[-1] < 0.1 * history.train[0]
    z = jax.random.normal(KEY, (50, 3))
    wanted, got, before = (
        jax.vmap(flow.bijector.forward)(z) for flow in (teacher, started, student)
    )
    assert jnp.square(got - wanted).mean() < 0.1 * jnp.square(before - wanted).mean()


def test_a_small_table(tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "keep_programs", lambda: None)
    config = distillation.Config(small=True, out=tmp_path / "out", runs=tmp_path / "runs")
    distillation.main(config)
    first = json.loads((config.out / "digits_small.json").read_text())["results"]
    assert 0 < first["kl_per_dimension"]["student"]["value"] < 1
    assert set(first["test"]) == set(first["sampling_1000"]) == {"teacher", "student"}
    assert first["test"]["teacher"]["nats"] > first["test"]["student"]["nats"]
    assert (config.out / "digits_small.png").stat().st_size > 5000
    distillation.main(config)  # resumes at the end
    again = json.loads((config.out / "digits_small.json").read_text())["results"]
    assert again["kl_per_dimension"] == first["kl_per_dimension"]


def make_recordings(size=30):
    """Return random symbols as spoken digits of two speakers."""
    rng = np.random.default_rng(0)
    symbols = [rng.integers(90, 170, 350).astype(np.uint8) for _ in range(size)]
    digits = np.arange(size, dtype=np.uint8) % 10
    return Recordings(symbols, digits, np.array(["ann", "bob"])[np.arange(size) % 2])


def test_units_take_symbols_to_scale_one_and_back():
    symbols = make_recordings().symbols
    units, rng = spoken_windows.Units.of(symbols), np.random.default_rng(1)
    x = units.encode(symbols[0], rng)
    np.testing.assert_allclose(np.std(x), 1, rtol=0.1)
    np.testing.assert_array_equal(units.decode(x), CODEC.decode(symbols[0]))
    assert np.abs(units.decode(np.full(3, 1e3))).max() <= 1


def test_a_longer_flow_keeps_its_conditionals():
    sizes = spoken_flows.TINY
    teacher = randomize(spoken_flows.build_teacher(sizes, 3, 0))
    student = randomize(spoken_flows.build_student(sizes, 3, 0), 0.2)
    context, z = jnp.array([1.0, 0.0, 2.0]), jax.random.normal(KEY, (sizes.length + 20,))
    for flow, direction in [(teacher, "inverse"), (student, "forward")]:
        longer = spoken_flows.lengthen(flow, len(z))
        got = getattr(longer.bijector, direction)(z, context)
        short = getattr(flow.bijector, direction)(z[: sizes.length], context)
        np.testing.assert_allclose(got[: sizes.length], short, rtol=1e-9, atol=1e-9)
        assert longer.event_shape == (len(z),)


def test_the_start_of_speech_is_perfect_for_the_teacher_itself():
    sizes = spoken_flows.TINY
    teacher = randomize(spoken_flows.build_teacher(sizes, 3, 0), 0.1)
    windows = spoken_windows.Windows(jax.random.normal(KEY, (5, sizes.length)), jnp.ones((5, 3)))
    find = partial(spoken_flows.find_start_loss, 2, teacher, windows)
    assert find(teacher, KEY, None) < 1e-20
    assert find(spoken_flows.build_student(sizes, 3, 0), KEY, None) > 0.01


def test_small_speech(tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "keep_programs", lambda: None)
    monkeypatch.setattr(
        distilled_speech, "spoken_digits", lambda _: Speech(*[make_recordings()] * 3)
    )
    config = distillation.Config(
        task="speech", small=True, out=tmp_path / "out", runs=tmp_path / "runs"
    )
    distillation.main(config)
    results = json.loads((config.out / "speech_small.json").read_text())["results"]
    assert set(results["kl_per_sample"]) == {"start", "student"}
    assert set(results["histories"]) == {"teacher", "start", "student"}
    assert results["second_of_speech"]["teacher_over_student"] > 0
    assert len(list(config.out.glob("speech_small_*.wav"))) == 20
    assert (config.out / "speech_small.png").stat().st_size > 10_000
