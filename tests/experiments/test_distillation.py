"""Distillation experiments: the mirrored student, its start, and small runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import distillation  # noqa: E402
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
    first = json.loads((config.out / "digits.json").read_text())["results"]
    assert 0 < first["kl_per_dimension"]["student"]["value"] < 1
    assert set(first["test"]) == set(first["sampling_1000"]) == {"teacher", "student"}
    assert first["test"]["teacher"]["nats"] > first["test"]["student"]["nats"]
    assert (config.out / "digits.png").stat().st_size > 5000
    distillation.main(config)  # resumes at the end
    again = json.loads((config.out / "digits.json").read_text())["results"]
    assert again["kl_per_dimension"] == first["kl_per_dimension"]
