"""Cards, descriptions, files of safetensors, and exported programs."""

import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import afflow
from afflow.__main__ import main

SEED = {"rngs": nnx.Rngs(0)}
SMALL = {"num_layers": 2, "hidden": (4,)}
KEY = jax.random.key(3)

# A program that no import of afflow can help.
ALONE = """
import sys, zipfile
sys.modules["afflow"] = sys.modules["flax"] = None
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
read = zipfile.ZipFile(sys.argv[1]).read
given = dict(np.load(sys.argv[2]))
context = [given["context"]] if "context" in given else []
log_prob, sample = (jax.export.deserialize(bytearray(read(n))) for n in ("log_prob", "sample"))
log_prob.mlir_module_serialized
np.savez(
    sys.argv[3],
    log_prob=log_prob.call(given["x"], *context),
    sample=sample.call(given["keys"], *context),
)
"""


def flow(**options):
    """Return a small flow of three dimensions with random weights."""
    model = afflow.maf(3, **SMALL | {"rngs": nnx.Rngs(0)} | options)
    return jax.tree.map(lambda a: a + 0.1 if jnp.issubdtype(a.dtype, jnp.floating) else a, model)


def test_a_card_is_kept_and_described(tmp_path):
    path = tmp_path / "flow.zip"
    card = {"data": "POWER", "test nats": np.float32(0.5), "epochs": jnp.array(3), "by": ["a", "b"]}
    afflow.save(flow(), path, card=card)
    text = afflow.saving.describe(path)
    for line in ("data: POWER", "test nats: 0.5", "epochs: 3", "by: ['a', 'b']"):
        assert f"\n{line}\n" in text
    assert f"afflow {afflow.__version__}" in text
    assert repr(afflow.load(path)) in text


@pytest.mark.parametrize("card", [{"loss": np.nan}, {"flow": flow}, {"x": np.ones(3)}, "words"])
def test_other_cards_are_refused(card, tmp_path):
    with pytest.raises(ValueError, match="Expected a card of strings, finite numbers"):
        afflow.save(flow(), tmp_path / "flow.zip", card=card)
    assert not list(tmp_path.iterdir())


def test_the_command_line_describes_files(tmp_path, capsys):
    path = tmp_path / "flow.zip"
    afflow.save(flow(), path, card={"data": "moons"})
    assert main(["describe", str(path)]) == 0
    assert capsys.readouterr().out == afflow.saving.describe(path) + "\n"
    path.write_bytes(b"no archive")
    assert main(["describe", str(path)]) == 1
    assert "Expected a whole file of afflow.save" in capsys.readouterr().err
    assert main(["describe", str(tmp_path / "nowhere.zip")]) == 1


def test_files_without_a_card_are_described():
    path = f"{__file__.rpartition('/')[0]}/archives/format1_flow.zip"
    assert repr(afflow.load(path)) in afflow.saving.describe(path)


def make_long_chain(seed):
    """Return a flow with more than ten layers, whose order is not the order of their names."""
    layers = [afflow.Standardize(jnp.array([seed + i]), jnp.array([2.0])) for i in range(12)]
    return afflow.Flow(afflow.Normal(1), afflow.Chain(layers))


MODELS = {
    "maf": lambda seed: afflow.maf(3, **SMALL, rngs=nnx.Rngs(seed)),
    "repeat": lambda seed: afflow.maf(3, num_layers=4, hidden=(4,), rngs=nnx.Rngs(seed)),
    "long chain": make_long_chain,
    "bfloat16": lambda seed: nnx.Linear(2, 2, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(seed)),
    "keys": lambda seed: nnx.Dropout(0.5, rngs=nnx.Rngs(seed)),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_come_back_in_another_model(name, tmp_path):
    saved, other = MODELS[name](1), MODELS[name](2)
    afflow.saving.save_parameters(saved, tmp_path / "flow.safetensors")
    loaded = afflow.saving.load_parameters(other, tmp_path / "flow.safetensors")
    assert jax.tree.structure(loaded) == jax.tree.structure(saved)
    pairs = zip(*map(jax.tree.leaves, (saved, loaded)), strict=True)
    assert all(a.dtype == b.dtype and (a == b).all() for a, b in pairs)
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (saved, other)), strict=True))


def test_names_of_parameters_are_their_paths(tmp_path):
    from safetensors.numpy import load_file

    path, model = tmp_path / "flow.safetensors", flow()
    afflow.saving.save_parameters(model, path)
    kernel = load_file(path)["bijector.bijectors.0.bijectors.1.conditioner.kernels.0"]
    assert (kernel == model.bijector.bijectors[0].bijectors[1].conditioner.kernels[0]).all()


def test_parameters_of_another_model_are_refused(tmp_path):
    path = tmp_path / "flow.safetensors"
    afflow.saving.save_parameters(flow(), path)
    with pytest.raises(ValueError, match=r"biases.0 as \['F64', \[5\]\], got"):
        afflow.saving.load_parameters(flow(hidden=(5,)), path)
    with pytest.raises(ValueError, match="differs in bijector.bijectors"):
        afflow.saving.load_parameters(flow(num_layers=1), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="Expected a whole file of safetensors"):
        afflow.saving.load_parameters(flow(), path)


EXPORTED = {
    "maf": lambda: (flow(), None),
    "splines with contexts": lambda: (
        afflow.nsf(3, context_dim=2, num_layers=1, hidden=(4,), **SEED),
        (2,),
    ),
    "nade": lambda: (afflow.nade(3, hidden=2, **SEED), None),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_programs_run_without_afflow(name, tmp_path):
    model, context_shape = EXPORTED[name]()
    programs, given, made = (tmp_path / f for f in ("programs.zip", "given.npz", "made.npz"))
    afflow.saving.export(model, programs)
    keys, context = jax.random.split(KEY, 7), ()
    if context_shape is not None:
        context = (jax.random.normal(KEY, (7, *context_shape)),)
    x = jax.vmap(lambda key, *h: model.sample(key, (), *h))(keys, *context)
    more = {"context": context[0]} if context else {}
    np.savez(given, x=x, keys=jax.random.key_data(keys), **more)
    subprocess.run([sys.executable, "-c", ALONE, programs, given, made], check=True)
    result = np.load(made)
    np.testing.assert_allclose(result["log_prob"], model.log_prob(x, *context), rtol=1e-12)
    np.testing.assert_allclose(result["sample"], x, rtol=1e-12)


def test_programs_are_lowered_for_each_platform(tmp_path):
    afflow.saving.export(flow(num_layers=1), tmp_path / "programs.zip")
    archive = zipfile.ZipFile(tmp_path / "programs.zip")
    for name in ("log_prob", "sample"):
        program = jax.export.deserialize(bytearray(archive.read(name)))
        assert program.platforms == ("cpu", "cuda", "tpu")


def test_tables_are_exported_as_numbers(tmp_path):
    rows = {"a": np.arange(9.0), "b": np.arange(9.0) ** 2 + 1}
    columns = {"a": afflow.Real(), "b": afflow.Above(0)}
    model = afflow.maf(2, columns=columns, data=rows, num_layers=1, hidden=(4,), **SEED)
    afflow.saving.export(model, tmp_path / "programs.zip", platforms=["cpu"])
    program = zipfile.ZipFile(tmp_path / "programs.zip").read("log_prob")
    log_prob = jax.export.deserialize(bytearray(program)).call(np.stack([*rows.values()], -1))
    np.testing.assert_allclose(log_prob, model.log_prob(rows), rtol=1e-12)


def test_what_cannot_be_exported_is_said(tmp_path):
    path = tmp_path / "programs.zip"
    with pytest.raises(ValueError, match="with log_prob and sample, got Permutation"):
        afflow.saving.export(afflow.Reverse(2), path)
    with pytest.raises(ValueError, match="a model and a path in this order"):
        afflow.saving.export(path, flow())
    assert not path.exists()
