"""A printed module shows its parts and sizes, and printing has no side effects."""

import copy
import inspect
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import afflow


def flow():
    """Return a flow with several layers."""
    return afflow.maf(5, num_layers=3, hidden=(4,), context_dim=2, rngs=nnx.Rngs(0))


def test_tree_of_parts():
    lines = str(flow()).splitlines()
    assert [line.split("(")[0] for line in lines] == [
        "Flow",
        "  base: Normal",
        "  bijector: Chain",
        "    0: Repeat",
        "      layers: Chain",
        "        0: LU",
        "          permutation: Shuffle",
        "        1: MaskedAutoregressive",
        "          conditioner: MADE",
        "          univariate: Affine",
    ]
    count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(flow(), nnx.Param)))
    assert lines[0] == f"Flow(context_shape=(2,), event_shape=(5,)): {count} parameters"
    assert "hidden=(4,)" in lines[8]


def test_long_settings_are_cut():
    text = repr(afflow.Permutation.random(200, jax.random.key(0)))
    assert "..." in text
    assert len(text) < 100


@pytest.mark.parametrize(
    "make",
    [
        lambda: jax.tree.map(lambda a: 0, flow()),
        lambda: jax.eval_shape(flow),
        lambda: nnx.merge(*nnx.split(flow())),
        lambda: nnx.clone(flow()),
    ],
    ids=["axes", "shapes", "merged", "cloned"],
)
def test_any_leaves(make):
    assert repr(make()).startswith("Flow(context_shape=(2,), event_shape=(5,))")


def test_while_tracing():
    def run(flow, x):
        assert "MADE" in repr(flow)
        return flow.log_prob(x, jnp.ones(2))

    assert jnp.isfinite(jax.jit(run)(flow(), jnp.ones(5)))


def test_help_shows_the_constructor():
    """Check that each public class of parts shows the signature of its constructor."""
    packages = [package for package in vars(afflow).values() if hasattr(package, "__all__")]
    assert len(packages) > 10
    for package, name in ((p, n) for p in (afflow, *packages) for n in p.__all__):
        cls = getattr(package, name)
        if isinstance(cls, type) and issubclass(cls, nnx.Module | nnx.Variable):
            shown = str(inspect.signature(cls))
            assert "*args" not in shown, name
            assert "self" not in shown, name
    assert list(inspect.signature(afflow.Flow).parameters) == ["base", "bijector"]
    assert str(inspect.signature(afflow.Bijector)) == "()"
    assert "value" in inspect.signature(afflow.core.Constant).parameters


def test_copies_by_cloudpickle():
    cloudpickle = pytest.importorskip("cloudpickle")
    model = flow()
    copied = cloudpickle.loads(cloudpickle.dumps(model))
    x, context = jnp.ones((3, 5)), jnp.ones(2)
    np.testing.assert_array_equal(copied.log_prob(x, context), model.log_prob(x, context))


@pytest.mark.parametrize("activation", [jax.nn.silu, jax.nn.relu, jnp.tanh, jax.lax.sin])
def test_copies_by_pickle(activation):
    """Check pickling of JAX functions, which are stored by name."""
    flow = afflow.made(2, hidden=(4,), activation=activation, rngs=nnx.Rngs(0))
    x = jnp.ones((3, 2))
    for copied in (pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow)):
        np.testing.assert_array_equal(copied.log_prob(x), flow.log_prob(x))
        assert copied.bijector.bijectors[0].conditioner.activation is activation
