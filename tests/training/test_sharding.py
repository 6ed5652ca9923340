"""Training and sampling on many devices give the results of one device, up to rounding."""

import os
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

import afflow
from afflow.training.placement import make_placement, on_mesh
from tests import sharded


@pytest.fixture(scope="module")
def alone():
    """Return the flow and history from training on one device."""
    return sharded.fit(None)


def start(out, *arguments, devices):
    """Start `tests.sharded` in a new process with the given number of CPU devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.sharded", out, *map(str, arguments)]
    return subprocess.Popen(command, env=environment)


def assert_close(path, alone):
    """Check the saved result at `path` against the result of one device."""
    flow, train, validation, found = afflow.load(path)
    expected, history = alone
    np.testing.assert_allclose(train, history.train, rtol=1e-5)
    np.testing.assert_allclose(validation, history.validation, rtol=1e-5)
    pairs = (flow, found), (expected, sharded.evaluate(expected))
    for left, right in zip(*map(jax.tree.leaves, pairs), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


def test_eight_devices(alone, tmp_path):
    with start(tmp_path / "flow.zip", 4, 2, devices=8) as process:
        assert process.wait(300) == 0
    assert_close(tmp_path / "flow.zip", alone)


def test_two_processes(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    arguments = [(tmp_path / "flow.zip", 2, 2, process, 2, address) for process in (0, 1)]
    with start(*arguments[0], devices=2) as first, start(*arguments[1], devices=2) as second:
        assert (first.wait(300), second.wait(300)) == (0, 0)
    assert_close(tmp_path / "flow.zip", alone)


def test_minibatches_must_divide():
    two = type("Two", (), {"axis_names": ("data",), "devices": np.array(jax.devices() * 2)})
    with pytest.raises(ValueError, match="divide over 2 devices, got 41 rows"):
        sharded.fit(two, batch_size=41)
    with pytest.raises(ValueError, match=r"axes data and model, got \('rows',\)"):
        sharded.fit(jax.make_mesh((1,), ("rows",)))


def test_one_device_as_a_mesh(alone):
    flow, history = sharded.fit(jax.make_mesh((1,), ("data",)))
    np.testing.assert_allclose(history.train, alone[1].train, rtol=1e-6)
    assert jax.tree.structure(flow) == jax.tree.structure(alone[0])


def test_training_takes_the_mesh_of_the_context():
    @on_mesh
    def train(*, mesh=None, key=None):
        assert key is None or jax.random.key_data(key).tolist() == [0, 7]
        return mesh, jax.sharding.get_mesh()

    rows, other = jax.make_mesh((1,), ("data",)), jax.make_mesh((1,), ("rows",))
    assert train()[0] is None
    for mesh, given, expected in [(rows, None, rows), (other, None, None), (other, rows, rows)]:
        with jax.set_mesh(mesh):
            found, inner = train(mesh=given, key=jax.random.key(7))
        assert found == expected
        assert inner.empty


def test_shared_parts_stay_shared():
    part = afflow.Standardize(np.ones(2), np.ones(2))
    placement = make_placement(jax.make_mesh((1,), ("data",)))
    fetched = placement.fetched(afflow.Chain([part, part]))
    assert fetched.bijectors[0] is fetched.bijectors[1]
