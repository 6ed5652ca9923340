"""The events of a call are divided over the devices of a mesh.

`tests/training/test_sharding.py` compares the numbers with those of one device.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, use_abstract_mesh
from registry import FLOWS, KEY

import afflow
from afflow._tools.programs import find_operations_in

MODELS = {
    "nade": lambda: afflow.nade(3, hidden=4, rngs=nnx.Rngs(0)),
    "eonade": lambda: afflow.zoo.eonade(3, hidden=(4,), rngs=nnx.Rngs(0)),
    "made ensemble": lambda: afflow.zoo.made_ensemble(3, hidden=(4,), rngs=nnx.Rngs(0)),
    "gated": lambda: afflow.zoo.gated_pixelcnn((2, 3), channels=4, num_layers=1, rngs=nnx.Rngs(0)),
    "discrete vae": lambda: afflow.zoo.discrete_vae((4, 4), rngs=nnx.Rngs(0)),
}
SIZES = {"data": 4, "model": 2}
EXPLICIT = AbstractMesh(tuple(SIZES.values()), tuple(SIZES), (AxisType.Explicit,) * 2)
AUTOMATIC = AbstractMesh(tuple(SIZES.values()), tuple(SIZES))


def lay_out(shape, *spec):
    """Return the shape of an array on the explicit mesh."""
    sharding = NamedSharding(EXPLICIT, PartitionSpec(*spec))
    return jax.ShapeDtypeStruct(shape, jnp.result_type(float), sharding=sharding)


def trace(f, *args):
    """Return the layout of the result of a function, and the operations of its program."""
    jaxpr = jax.make_jaxpr(f)(*args)
    return jaxpr.out_avals[0].sharding.spec, find_operations_in(jaxpr)


@pytest.mark.parametrize("name", ["nsf mixed by lu", "iaf", "glow"])
def test_densities_lie_where_the_events_lie(name):
    flow = FLOWS[name]()
    x, context = lay_out((2, 8, *flow.event_shape), None, "data"), lay_out((8, 2), "data")
    spec, operations = trace(flow.log_prob, x, context)
    assert spec == PartitionSpec(None, "data")
    assert "shard_map" in operations


@pytest.mark.parametrize("name", FLOWS)
def test_samples_lie_where_the_contexts_lie(name):
    flow = FLOWS[name]()
    sample = partial(flow.sample_and_log_prob, KEY, 3)
    jaxpr = jax.make_jaxpr(sample)(lay_out((8, 2), "data"))
    for out in jaxpr.out_avals:
        assert out.sharding.spec == PartitionSpec(None, "data", *[None] * (out.ndim - 2))
    assert ("shard_map" in find_operations_in(jaxpr)) == (name != "cnf")


@pytest.mark.parametrize("name", MODELS)
def test_density_models_within_a_mesh(name):
    model = MODELS[name]()
    spec, _ = trace(model.log_prob, lay_out((8, *model.event_shape), "data"))
    assert spec == PartitionSpec("data")
    with use_abstract_mesh(AUTOMATIC):
        _, operations = trace(lambda key: model.sample(key, 8), KEY)
    assert "shard_map" in operations


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (7, 4), (4, 7)])
@pytest.mark.parametrize("chunk", [None, 3])
def test_any_number_of_events(shape, chunk):
    flow = FLOWS["made"]()
    with use_abstract_mesh(EXPLICIT):
        out = jax.eval_shape(lambda key: flow.sample(key, shape, jnp.ones(2), chunk=chunk), KEY)
    assert out.shape == (*shape, 2)
    assert not any(out.sharding.spec)


def test_gradients_lie_where_the_parameters_lie():
    flow = FLOWS["iaf"]()
    x, context = lay_out((8, 2), "data"), lay_out((2,))
    grad = jax.make_jaxpr(jax.grad(lambda flow, x, c: flow.log_prob(x, c).mean()))
    found = grad(flow, x, context).out_avals
    assert [a.sharding.spec for a in found] == [PartitionSpec(*[None] * a.ndim) for a in found]


def test_other_axes_and_other_meshes():
    flow = FLOWS["made"]()
    both = PartitionSpec(("data", "model"))
    assert trace(flow.log_prob, lay_out((16, 2), *both), lay_out((2,)))[0] == both
    with use_abstract_mesh(AbstractMesh((8,), ("rows",), (AxisType.Explicit,))):
        spec, operations = trace(lambda key: flow.sample(key, 8, jnp.ones(2)), KEY)
    assert spec == PartitionSpec(None, None)
    assert "shard_map" not in operations
    _, operations = trace(lambda key: flow.sample(key, 8, jnp.ones(2)), KEY)
    assert "shard_map" not in operations


def test_streams_within_a_mesh():
    """Check one event that is drawn in parts, on an explicit mesh of one device."""
    sizes = {"features": 4, "width": 8, "num_layers": 1, "num_heads": 2}
    network = afflow.conditioners.Transformer(5, 4, **sizes, rngs=nnx.Rngs(0))
    model = afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(4))

    def draw():
        return np.concatenate([x for x, _ in model.stream(KEY, np.array([1, 2]), 5, chunk=2)])

    expected = draw()
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):
        np.testing.assert_array_equal(draw(), expected)
