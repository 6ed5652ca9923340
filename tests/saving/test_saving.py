"""Saving models: everything is restored, and objects that cannot be saved raise an error."""

import dataclasses
import io
import json
import pkgutil
import subprocess
import sys
import zipfile
from functools import partial
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import afflow
from afflow.saving.description import Reader, Writer
from tests.registry import BIJECTORS, CONDITIONERS, cast

ARCHIVES = Path(__file__).parent / "archives"

ALL = BIJECTORS | {f"conditioner {name}": make for name, make in CONDITIONERS.items()}


def assert_same(a, b):
    """Check that two pytrees are equal in structure, types and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert jnp.asarray(left).dtype == jnp.asarray(right).dtype
        np.testing.assert_array_equal(left, right)


def copy_of(model, folder):
    """Save and load a model."""
    path = folder / "model.zip"
    afflow.save(model, path)
    return afflow.load(path)


@pytest.mark.parametrize("name", ALL)
def test_every_part_comes_back(name, tmp_path):
    module = ALL[name]()
    found = copy_of(module, tmp_path)
    assert_same(found, module)
    assert [p.name for p in tmp_path.iterdir()] == ["model.zip"]


RNGS = {"rngs": nnx.Rngs(0)}
FLOWS = {
    "maf": lambda: afflow.maf(
        2, num_layers=2, hidden=(4,), data=np.arange(6.0).reshape(3, 2), **RNGS
    ),
    "deep": lambda: afflow.nsf(2, num_layers=9, hidden=(4,), dtype=jnp.bfloat16, **RNGS),
    "bfloat16": lambda: cast(afflow.made(2, hidden=(4,), **RNGS), jnp.bfloat16),
    "bases": lambda: afflow.Flow(
        afflow.distributions.Mixture(
            [
                afflow.distributions.StudentT(2),
                afflow.distributions.DiagonalNormal(jnp.ones(2), jnp.ones(2)),
            ]
        ),
        afflow.Reverse(2),
    ),
    "many": lambda: {"a": (afflow.Reverse(2), [1.5, float("inf")]), "b": jnp.ones(2)},
}


@pytest.mark.parametrize("name", FLOWS)
def test_flows_come_back(name, tmp_path):
    flow = FLOWS[name]()
    assert_same(copy_of(flow, tmp_path), flow)


def test_shared_parts_stay_shared(tmp_path):
    part = afflow.Elementwise(afflow.Affine(), 2)
    found = copy_of(afflow.Chain([part, afflow.Reverse(2), part]), tmp_path)
    first, _, last = found.bijectors
    assert first is last
    first.params[...] += 1.0
    np.testing.assert_array_equal(last.params[...], 1.0)


def test_keys_and_partial_functions_come_back(tmp_path):
    leaky = partial(jax.nn.leaky_relu, negative_slope=0.1)
    key, module = copy_of([jax.random.key(3), made(leaky)], tmp_path)
    assert (jax.random.key_data(key) == jax.random.key_data(jax.random.key(3))).all()
    assert module.activation(-1.0) == leaky(-1.0)


def test_the_values_come_back_too(tmp_path):
    flow = FLOWS["maf"]()
    x = jnp.arange(6.0).reshape(3, 2)
    found = copy_of(flow, tmp_path)
    np.testing.assert_array_equal(found.log_prob(x), flow.log_prob(x))
    key = jax.random.key(0)
    np.testing.assert_array_equal(found.sample(key, 3), flow.sample(key, 3))


def test_another_process_loads_it_without_pickle(tmp_path):
    afflow.save(FLOWS["maf"](), tmp_path / "model.zip")
    script = (
        "import sys, pickle; pickle.load = pickle.loads = None; import afflow;"
        "flow = afflow.load(sys.argv[1]); print(flow.log_prob([[0.0, 1.0]])[0])"
    )
    command = [sys.executable, "-c", script, tmp_path / "model.zip"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    expected = FLOWS["maf"]().log_prob(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(float(printed), expected, rtol=1e-5)


def test_the_architecture_is_readable(tmp_path):
    afflow.save(afflow.Reverse(2), tmp_path / "model.zip")
    description = json.loads(zipfile.ZipFile(tmp_path / "model.zip").read("model.json"))
    module = description["model"]["module"]
    assert module["class"] == "afflow:Permutation"
    assert module["fields"]["order"] == {"tuple": [1, 0]}


class Own(afflow.Bijector):
    """A bijector defined by a user."""

    event_shape, context_shape = (2,), None

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(2))

    def forward_and_log_det(self, x, context=None):
        return x * self.scale[...], jnp.log(self.scale[...]).sum()

    def inverse_and_log_det(self, y, context=None):
        return y / self.scale[...], -jnp.log(self.scale[...]).sum()


def own_activation(x):
    """Return an activation defined by a user."""
    return jnp.tanh(x) ** 3


def made(activation):
    """Return a MADE with the given activation."""
    return afflow.MADE(2, 2, (4,), activation=activation, **RNGS)


def test_parts_of_ones_own_are_registered(tmp_path, monkeypatch):
    monkeypatch.setattr("afflow._tools.names._registered", {})
    path = tmp_path / "model.zip"
    model = [Own(), made(own_activation)]
    with pytest.raises(ValueError, match=r"known class at list\[0\], got Own: register"):
        afflow.save(model, path)
    assert afflow.saveable(Own) is Own
    with pytest.raises(ValueError, match=r"list\[1\].activation, got <function own_activation"):
        afflow.save(model, path)
    assert not path.exists()
    afflow.saveable(own_activation)
    assert_same(copy_of(model, tmp_path), model)
    monkeypatch.setattr("afflow._tools.names._registered", {})
    with pytest.raises(ValueError, match="Own: import its module and register it"):
        afflow.load(path)


@dataclasses.dataclass(frozen=True)
class Options:
    """Static options defined by a user."""

    size: int


CANNOT = {
    "lambda": (
        lambda: made(lambda x: x),
        "activation, got <function .*: take a function of jax.nn",
    ),
    "object": (lambda: [object()], r"at list\[0\], got <object"),
    "options": (lambda: [Options(3)], "got Options: register it"),
    "os": (lambda: [subprocess.run], "got <function run"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_saved_is_said(name, tmp_path):
    make, message = CANNOT[name]
    with pytest.raises(ValueError, match=message):
        afflow.save(make(), tmp_path / "model.zip")


def test_a_lambda_cannot_be_registered():
    with pytest.raises(ValueError, match="use def"):
        afflow.saveable(lambda x: x)


def write(path, model, **more):
    """Write an archive with the given description of a model."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.json", json.dumps({"format": 1, "model": model} | more))


BAD = {
    "a system call": ({"name": "os:system"}, "Expected a class or function of afflow"),
    "a way round": (
        {"name": "afflow.saving:os.system"},
        "Expected to find afflow.saving:os.system",
    ),
    "no module": ({"name": "afflow.nowhere:thing"}, "Expected to find afflow.nowhere"),
    "a function as class": (
        {"module": {"class": "jax.nn:relu", "fields": {}}},
        "Expected a class of Pytrees",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_names_known_parts_only(name, tmp_path):
    model, message = BAD[name]
    write(tmp_path / "model.zip", model)
    with pytest.raises(ValueError, match=message):
        afflow.load(tmp_path / "model.zip")


def test_damaged_and_later_files(tmp_path):
    path = tmp_path / "model.zip"
    afflow.save(FLOWS["maf"](), path)
    content = bytearray(path.read_bytes())
    for damaged in (content[:100], content[: len(content) // 2], b"no zip"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="Expected a whole file"):
            afflow.load(path)
    place = content.index(b"\x93NUMPY") + 130
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="Expected a whole file"):
        afflow.load(path)
    write(path, None, format=3)
    with pytest.raises(ValueError, match="format 2 or an earlier one, got 3"):
        afflow.load(path)


@pytest.mark.parametrize("shape", [(9,), (7, 3), ()])
def test_arrays_of_another_shape_are_refused(tmp_path, shape):
    path, other = tmp_path / "model.zip", tmp_path / "other.zip"
    afflow.save(afflow.made(2, hidden=(4,), **RNGS), path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "0.npy":
                entry, dtype = io.BytesIO(), np.load(io.BytesIO(content)).dtype
                np.save(entry, np.zeros(shape, dtype))
                content = entry.getvalue()
            changed.writestr(name, content)
    with pytest.raises(ValueError, match=r"Expected float\d+ of shape \(4, 1\)"):
        afflow.load(other)


def test_files_do_not_name_the_modules_of_afflow(tmp_path):
    """Check that a file holds class names without modules, so that a class can move."""
    path = tmp_path / "flow.zip"
    afflow.save(afflow.nsf(2, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0)), path)
    with zipfile.ZipFile(path) as archive:
        text = archive.read("model.json").decode()
    assert '"afflow:RationalQuadraticSpline"' in text
    assert "afflow." not in text


def test_renamed_classes_are_found(tmp_path):
    """Check that an old class name loads from an archive, and raises a helpful error in code."""
    path = tmp_path / "solver.zip"
    write(path, {"object": {"class": "afflow.inversion:Sequential", "fields": {}}})
    assert afflow.load(path) == afflow.FullPasses()
    with pytest.raises(AttributeError, match="it is afflow.FullPasses now"):
        _ = afflow.Sequential
    with pytest.raises(AttributeError, match="no attribute 'nowhere'$"):
        _ = afflow.nowhere


def test_classes_of_afflow_have_names_of_their_own():
    """Check that no two classes share a name, since files identify classes by name."""
    homes: dict[str, set] = {}
    for info in pkgutil.walk_packages(afflow.__path__, "afflow."):
        for name, value in vars(import_module(info.name)).items():
            if isinstance(value, type) and value.__module__.split(".")[0] == "afflow":
                homes.setdefault(name, set()).add(value.__module__)
    assert "Flow" in homes
    assert not {name: found for name, found in homes.items() if len(found) > 1}


VALUES = np.array([[0.3, -1.0], [2.0, 0.5]], np.float32)
SYMBOLS = np.array([[0, 2], [2, 1]])


@pytest.mark.parametrize(
    ("name", "x", "log_probs"),
    [
        ("format1_flow", VALUES, [-8.216497421264648, -4.359569072723389]),
        ("format1_rnade", VALUES, [-2.804439067840576, -3.3413798809051514]),
        ("format2_symbols", SYMBOLS, [-1.157751202583313, -3.691390037536621]),
    ],
)
def test_archives_of_earlier_versions_are_the_same_densities(name, x, log_probs):
    """Check archives from before mixtures had `spread`, and symbols `height`."""
    model = afflow.load(ARCHIVES / f"{name}.zip")
    np.testing.assert_allclose(model.log_prob(x), log_probs, rtol=1e-6)


def test_a_context_of_an_earlier_version_is_read_alike():
    """Check an archive from before an `Encoder` could read symbols."""
    x, context = np.array([[0, 2], [1, 0]]), np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]]
    log_prob = afflow.load(ARCHIVES / "format2_questions.zip").log_prob(x, context)
    np.testing.assert_allclose(log_prob, [-3.8927865028381348, -2.1777594089508057], rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        *("flax.io:rename", "jax.numpy:load", "jax:numpy.load", "flax.nnx.nn.linear:jnp.load"),
        *("afflow:save", "afflow:write_midi", "afflow:import_extra"),
        "equinox:tree_serialise_leaves",
    ],
)
def test_a_file_names_no_function_on_files(name, tmp_path):
    """Check that `load` refuses functions that could write, read or move files of the reader."""
    path = tmp_path / "model.zip"
    afflow.save(afflow.MADE(2, 1, (4,), activation=partial(jnp.tanh), rngs=nnx.Rngs(0)), path)
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    assert parts["model.json"].count(b"jax.nn:tanh") == 1
    parts["model.json"] = parts["model.json"].replace(b"jax.nn:tanh", name.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    with pytest.raises(ValueError, match="class or function"):
        afflow.load(path)


@pytest.mark.parametrize(
    "array",
    [
        jnp.array(1.5, jnp.bfloat16),
        jnp.ones((2, 3), jnp.bfloat16),
        np.arange(3.0).astype(">f8"),
        np.array(2, ">i4"),
    ],
    ids=str,
)
def test_arrays_of_every_type_and_shape_return(array):
    write = Writer()
    json = write(array, "here")
    found = Reader(write.arrays)(json)
    assert found.shape == array.shape
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)
