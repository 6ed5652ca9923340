"""Checkpoints: a killed run ends bit for bit as an uninterrupted run, and nothing is lost."""

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import nnx

import afflow
from afflow.training.checkpoint import Store
from afflow.training.run import Run, State

X = np.random.default_rng(0).normal(size=(300, 2)) * [0.5, 3.0] + [2.0, -1.0]
OPTIONS = {"key": jax.random.key(0), "batch_size": 30, "progress": False, "ema": 0.9}


def small(width=5):
    """Return a small flow."""
    return afflow.made(2, hidden=(width,), rngs=nnx.Rngs(0))


def fit(folder, *, width=5, x=X, steps=4, keep=2, extend=False, **options):
    """Fit a small flow with checkpoints in `folder`."""
    checkpoint = afflow.Checkpoint(folder, keep=keep, steps=steps, extend=extend)
    options = OPTIONS | {"max_epochs": 3, "checkpoint": checkpoint} | options
    return afflow.fit(small(width), x, **options)


class Killed(Exception):
    """The exception that stands for a killed process."""


def kill(at):
    """Return a callback that raises `Killed` after epoch `at`."""

    def callback(epoch):
        if epoch.number == at:
            raise Killed

    return callback


def assert_same(a, b):
    """Check that two results of `fit` are equal bit for bit."""
    (model_a, history_a), (model_b, history_b) = a, b
    assert history_a == history_b
    for left, right in zip(jax.tree.leaves(model_a), jax.tree.leaves(model_b), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the result of an uninterrupted run, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return fit(folder), folder


def copy_of(folder, to):
    """Copy `folder` to `to`, and return `to`."""
    return subprocess.run(["cp", "-r", folder, to], check=True) and to


@pytest.mark.parametrize("at", [0, 2])
def test_goes_on_to_the_same_bits(whole, tmp_path, at):
    with pytest.raises(Killed):
        fit(tmp_path, callbacks=[kill(at)])
    assert_same(fit(tmp_path), whole[0])


def mapped(folder):
    """Return the data as a memory-mapped file in `folder`."""
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r")


def streamed(folder):
    """Return random data as a `Stream`."""

    def make(epoch):
        rng = np.random.default_rng(epoch)
        while True:
            yield rng.normal(size=(8, 2))

    return afflow.training.Stream(make, num_steps=9)


@pytest.mark.parametrize("source", [mapped, streamed])
def test_data_from_elsewhere_goes_on_to_the_same_bits(tmp_path, source):
    options = {"x": source(tmp_path), "validation": X, "steps": 2}
    if source is streamed:
        options |= {"batch_size": None}
    whole = fit(tmp_path / "whole", **options)
    with pytest.raises(Killed):
        fit(tmp_path / "killed", callbacks=[kill(1)], **options)
    assert_same(fit(tmp_path / "killed", **options), whole)


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: afflow.maf(1, num_layers=1, hidden=(4,), rngs=rngs),
        lambda rngs: afflow.nade(1, hidden=3, rngs=rngs),
    ],
    ids=["maf", "nade"],
)
@pytest.mark.filterwarnings("error")
def test_models_with_empty_arrays_go_on(make, tmp_path):
    model, x = make(nnx.Rngs(0)), np.random.default_rng(0).integers(0, 2, (60, 1)).astype(float)
    assert any(leaf.size == 0 for leaf in jax.tree.leaves(model))
    options = OPTIONS | {"max_epochs": 2}
    expected = afflow.fit(model, x, **options)
    checkpoint = afflow.Checkpoint(tmp_path)
    with pytest.raises(Killed):
        afflow.fit(model, x, checkpoint=checkpoint, callbacks=[kill(1)], **options)
    assert_same(expected, afflow.fit(model, x, checkpoint=checkpoint, **options))


def test_checkpoints_rotate(whole):
    assert sorted(p.name for p in whole[1].iterdir() if p.is_dir()) == ["26", "27"]


def test_a_finished_run_returns_at_once(whole):
    assert_same(fit(whole[1], callbacks=[kill(0)]), whole[0])


def test_a_checkpoint_changes_no_bits_of_whole_epochs(tmp_path):
    assert_same(fit(tmp_path, steps=None), afflow.fit(small(), X, max_epochs=3, **OPTIONS))


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """Return the result of five epochs at one learning rate."""
    return fit(tmp_path_factory.mktemp("longer"), max_epochs=5, optimizer=optax.adam(1e-2))


def test_a_run_goes_on_into_more_epochs(longer, tmp_path):
    options = {"optimizer": optax.adam(1e-2)}
    fit(tmp_path, **options)
    with pytest.raises(ValueError, match="another number of epochs: .* extend=True"):
        fit(tmp_path, max_epochs=5, **options)
    options |= {"max_epochs": 5, "extend": True}
    with pytest.raises(Killed):
        fit(tmp_path, callbacks=[kill(4)], **options)
    assert_same(fit(tmp_path, **options), longer)
    assert_same(fit(tmp_path, callbacks=[kill(0)], **options), longer)  # finished: at once


def test_a_run_that_stopped_goes_on_with_more_patience(longer, tmp_path):
    options = {"optimizer": optax.adam(1e-2), "max_epochs": 5}
    _, history = fit(tmp_path, callbacks=[lambda epoch: epoch.number == 1], patience=7, **options)
    assert len(history.train) == 2
    assert_same(fit(tmp_path, extend=True, **options), longer)


def test_no_other_run_goes_on(tmp_path):
    fit(tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match="another model, number of epochs, optimizer: give"):
        fit(tmp_path, width=6, extend=True)


def test_the_default_schedule_goes_on_as_the_longer_one(tmp_path):
    def rate(t):
        return 5e-4 * (1 + jax.numpy.cos(jax.numpy.pi * t / jax.numpy.where(t < 27, 27.0, 45.0)))

    adam = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(rate))
    expected = fit(tmp_path / "expected", max_epochs=5, optimizer=adam)
    options = {"learning_rate": 1e-3, "weight_decay": 0.0}
    fit(tmp_path / "run", **options)
    _, history = fit(tmp_path / "run", max_epochs=5, extend=True, **options)
    np.testing.assert_allclose(history.train, expected[1].train, rtol=1e-6)


FOREIGN = {
    "model": {"width": 6},
    "loss or data": {"x": X + 1},
    "batches": {"batch_size": 29},
    "patience": {"patience": 1},
    "number of epochs": {"max_epochs": 4},
    "key": {"key": jax.random.key(1)},
    "optimizer": {"optimizer": optax.sgd(0.1)},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_checkpoint_is_an_error(whole, name):
    with pytest.raises(ValueError, match=f"another .*{name}.*: give another folder"):
        fit(whole[1], **FOREIGN[name])


def largest(folder):
    """Return the largest file in `folder`."""
    return max(folder.rglob("*"), key=lambda path: path.is_file() * path.stat().st_size)


def test_a_damaged_checkpoint_is_an_error(whole, tmp_path):
    folder = copy_of(whole[1], tmp_path / "damaged")
    os.truncate(largest(folder / "27"), 100)
    with pytest.raises(ValueError, match="got a damaged one: delete .*27 to go on"):
        fit(folder)
    subprocess.run(["rm", "-r", folder / "27"], check=True)
    assert_same(fit(folder), whole[0])


def test_a_flipped_bit_is_an_error(tmp_path):
    """Check that a flipped bit is detected, also if the file format has no checksum."""
    params = jax.numpy.asarray(np.random.default_rng(0).normal(size=10_000))
    run = Run(State(params, (), None, ()), best=params)
    store = Store(afflow.Checkpoint(tmp_path), {})
    store.keep(run, is_last=True)
    np.testing.assert_array_equal(store.latest(run).best, params)
    victim = largest(tmp_path)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ValueError, match="got a damaged one"):
        store.latest(run)


@contextmanager
def full_disk():
    """Simulate a full disk: no file can grow beyond 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_a_warning(whole, tmp_path):
    """Check that training continues, and that later checkpoints are written again."""
    disk = full_disk()

    def callback(epoch):
        if epoch.number == 0:
            disk.__enter__()
        if epoch.number == 1:
            disk.__exit__(None, None, None)

    with pytest.warns(UserWarning, match="No checkpoint in .*: "):
        found = fit(tmp_path, callbacks=[callback])
    assert_same(found, whole[0])
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["26", "27"]
    assert_same(fit(tmp_path), whole[0])


def test_a_step_that_is_not_finite_keeps_the_checkpoint_before(tmp_path):
    optimizer = optax.sgd(optax.piecewise_constant_schedule(0.01, {14: 1e300}))
    with pytest.raises(afflow.training.NonFiniteLossError, match="in epoch 1") as caught:
        fit(tmp_path, optimizer=optimizer)
    assert np.isfinite(caught.value.flow.log_prob(X)).all()
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["13", "9"]


def press_in(epochs):
    """Return a callback that sends Ctrl-C in the given epochs."""

    def callback(epoch):
        if epoch.number in epochs:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


def test_ctrl_c_ends_with_the_best(whole, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match="Interrupted in epoch 1"):
        _, history = fit(tmp_path, callbacks=[press_in([0])])
    assert len(history.train) == 1
    assert signal.getsignal(signal.SIGINT) is before
    assert_same(fit(tmp_path), whole[0])


SCRIPT = """
import jax, numpy as np, sys
sys.path.insert(0, sys.argv[2])
from tests.training import test_checkpoint as t
print("started", flush=True)
t.fit(sys.argv[1], callbacks=[lambda epoch: print("epoch", flush=True)])
"""


def test_killed_for_good(whole, tmp_path):
    """Check that a process killed by SIGKILL after its first epoch can be resumed."""
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-c", "from tests import conftest" + SCRIPT, tmp_path, root]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        for line in process.stdout:
            if line == "epoch\n":
                process.kill()
    assert process.returncode == -signal.SIGKILL
    assert_same(fit(tmp_path), whole[0])


def test_another_number_of_minibatches_in_a_step_is_another_run(tmp_path):
    fit(tmp_path, accumulate=2)
    with pytest.raises(ValueError, match="another accumulate"):
        fit(tmp_path, accumulate=3)
