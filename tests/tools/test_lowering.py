"""Every density and sampler lowers for GPUs and TPUs, in float32 throughout.

The tests need neither device. They find operations that a device does not support, and float64
arrays in a float32 program (the tests enable x64).
"""

import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from registry import BIJECTORS, FLOWS, cast

import afflow

PLATFORMS = ("cuda", "tpu")
WIDE = re.compile(r"tensor<(?:\d+x)+f64>")  # arrays only: Python numbers are 64-bit scalars


def struct(*shape):
    """Return the shape and type of a float32 array."""
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def lowered(f, *args):
    """Lower `f` for both platforms, and return the lines with float64 arrays."""
    program = jax.jit(f).trace(*args).lower(lowering_platforms=PLATFORMS).as_text()
    return [line.strip()[:200] for line in program.splitlines() if WIDE.search(line)]


@pytest.mark.parametrize("name", BIJECTORS)
def test_bijectors_lower_in_float32(name):
    bijector = cast(BIJECTORS[name](), jnp.float32)
    x = struct(3, *bijector.event_shape)
    context = None if bijector.context_shape is None else struct(3, *bijector.context_shape)
    axes = 0, None if context is None else 0

    def both(bijector, x, context):
        forward = jax.vmap(bijector.forward_and_log_det, axes)(x, context)
        return forward, jax.vmap(bijector.inverse_and_log_det, axes)(x, context)

    wide = lowered(both, bijector, x, context)
    assert not wide or name.startswith("continuous")  # Diffrax counts its steps in 64 bits


@pytest.mark.parametrize("name", FLOWS)
def test_flows_lower_in_float32(name):
    flow = cast(FLOWS[name](), jnp.float32)
    x = struct(3, *flow.event_shape)
    context = None if flow.context_shape is None else struct(3, *flow.context_shape)

    key = jax.eval_shape(lambda: jax.random.key(0))
    wide = lowered(lambda flow, *args: flow.log_prob(*args), flow, x, context)
    assert not wide or name == "cnf"
    lowered(lambda flow, key, context: flow.sample(key, (3,), context), flow, key, context)


@pytest.mark.parametrize(
    "factory", [afflow.fvsbn, afflow.nade, afflow.made_model, afflow.rnade, afflow.zoo.deep_nade]
)
def test_density_models_lower_in_float32(factory):
    model = cast(factory(3, rngs=nnx.Rngs(0)), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    assert not lowered(lambda model, x: model.log_prob(x), model, struct(2, 3))
    lowered(lambda model, key: model.sample(key, 2), model, key)


def test_gradients_lower():
    flow = cast(afflow.nsf(3, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0)), jnp.float32)

    def loss(flow, x):
        return flow.bijector.forward(x).sum() + flow.log_prob(x)

    wide = lowered(jax.grad(loss), flow, struct(*flow.event_shape))
    assert not wide


def test_products_are_float32_unless_the_user_chooses():
    """Check that a flow sets the precision of products, and that JAX's option overrides it."""
    flow = afflow.coupling_flow(3, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0))

    def program():
        return jax.jit(flow.log_prob).trace(struct(2, 3)).lower().as_text()

    assert "HIGHEST" in program()
    with jax.default_matmul_precision("tensorfloat32"):
        assert "HIGHEST" not in program()
