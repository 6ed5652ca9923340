"""The GPU kernel for masked networks: interpreted without a GPU, compiled with a GPU."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import (
    AbstractDevice,
    AbstractMesh,
    AxisType,
    NamedSharding,
    PartitionSpec,
    use_abstract_mesh,
)
from registry import randomize

import afflow
from afflow.conditioners.blocks import choose_block_cuts
from afflow.conditioners.decoding import find_obstacle
from afflow.conditioners.kernel import substitute_in_kernel
from afflow.conditioners.lanes import as_lanes, is_tileable, on_tile
from afflow.conditioners.substitution import substitute

GPU = AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")
INTERPRETED = jax.default_backend() == "cpu"
UNIVARIATES = {
    "affine": afflow.Affine,
    "additive": afflow.univariates.Additive,
    "spline": lambda: afflow.RationalQuadraticSpline(4),
    "heavy tails": afflow.univariates.HeavyTails,
}
NETWORKS = {
    "D=1": (1, (8,), {}),
    "D=1, context": (1, (8,), {"context_dim": 2}),
    "linear": (5, (), {"context_dim": 1}),
    "H<D": (7, (3, 5), {"context_dim": 2}),
    "residual": (6, (12, 12, 12), {"residual": True, "context_dim": 2}),
    "three blocks": (9, (100, 150), {}),
    "many slots in a block": (40, (50, 45), {"activation": jnp.tanh}),
    "no hidden units in the first slot": (4, (20, 20), {"activation": jax.nn.silu}),
    "bfloat16": (6, (30, 30), {"dtype": jnp.bfloat16, "context_dim": 1}),
}


def build(network, univariate):
    """Return a MADE with random float32 weights for `univariate`."""
    dim, hidden, options = NETWORKS[network]
    num_params = univariate.context_shape[0]
    made = afflow.MADE(dim, num_params, hidden, **options, rngs=nnx.Rngs(0))
    return jax.tree.map(lambda a: a.astype(jnp.float32), randomize(made, 0.2))


def drawn(*shape, seed=1):
    """Return random float32 numbers of the given shape."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Every network with the affine univariate, and every univariate with one network.
CASES = [(network, "affine") for network in NETWORKS]
CASES += [("residual", name) for name in UNIVARIATES if name != "affine"]


def check_close(found, expected, tol=2e-5):
    """Check that two pytrees have close values and equal types."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tol, atol=tol * (1 + np.abs(b).max(initial=0)))
        assert a.dtype == b.dtype


@pytest.mark.parametrize(("network", "univariate"), CASES)
def test_kernel_samples_as_steps_do(network, univariate):
    """Check the kernel against steps, with one event and with more events than a tile has."""
    univariate = UNIVARIATES[univariate]()
    made = build(network, univariate)
    z = drawn(19, *made.event_shape)
    context = None if made.context_shape is None else drawn(19, *made.context_shape, seed=2)
    results = []
    for kernel in (False, True):
        solver = afflow.Incremental(kernel=kernel)
        layer = afflow.MaskedAutoregressive(made, univariate, solver)
        axes = 0, None if context is None else 0
        many = jax.jit(jax.vmap(layer.forward_and_log_det, axes))(z, context)
        one = layer.forward_and_log_det(z[0], None if context is None else context[0])
        check_close(one, jax.tree.map(lambda a: a[0], many))
        results.append(many)
    check_close(results[1], results[0])


@pytest.mark.parametrize(("network", "univariate"), CASES)
def test_kernel_solves_the_linear_systems_of_derivatives(network, univariate):
    """Check the tangent system and the transposed system against `substitute`."""
    made = build(network, UNIVARIATES[univariate]())
    if made.dtype is not None:
        pytest.skip("derivatives of products in 16 bits differ by their rounding")
    dim, size = made.event_shape[0], made.num_params
    context = None if made.context_shape is None else drawn(*made.context_shape, seed=2)
    slopes = made._slopes(drawn(dim), context)
    slopes = [None if a is None else jnp.broadcast_to(a[:, None], (*a.shape, 5)) for a in slopes]
    layers = made._serial_layers(None)
    pairs = list(zip(layers, slopes, strict=True))
    straight = [m._replace(bias=jnp.zeros_like(m.bias), before=slope) for m, slope in pairs]
    gain, b = 0.1 * drawn(dim, size, 5), drawn(dim, 5, seed=3)

    def tangent(inputs, dp):
        gain, b = inputs
        return b + gain @ dp, None

    def cotangent(inputs, out):
        gain, b = inputs
        return gain * (b + out[0])[None], b + out[0]

    network = partial(made._network, lambda layer, h: h)
    transposed = [m._replace(before=slope).transpose(dim - 1) for m, slope in pairs]
    for args in (
        (network, straight, tangent, (gain, b), jnp.zeros_like(b[0])),
        (made._transposed_network, transposed, cotangent, (gain, b), gain[0] * b[:1]),
    ):
        expected = jax.jit(lambda args=args: substitute(*args))()
        found = jax.jit(lambda args=args: substitute_in_kernel(*args, interpret=INTERPRETED))()
        check_close(found, expected)


@pytest.mark.parametrize("tiling", [(32, 16, 4), (16, 128, 8)])
def test_every_tiling_gives_the_same_samples(tiling):
    made = build("three blocks", afflow.Affine())
    z, results = drawn(35, 9), []
    for kernel in (False, tiling):
        layer = afflow.MaskedAutoregressive(made, afflow.Affine(), afflow.Incremental(kernel))
        results.append(jax.jit(jax.vmap(layer.forward_and_log_det))(z))
    check_close(results[1], results[0])


def test_gradients_through_the_kernel():
    made = build("residual", afflow.Affine())
    z, context = drawn(3, 6), drawn(3, 2, seed=2)

    def loss(made, kernel):
        layer = afflow.MaskedAutoregressive(
            made, afflow.Affine(), afflow.Incremental(kernel=kernel)
        )
        y, log_dets = jax.vmap(layer.forward_and_log_det)(z, context)
        return jnp.sum(jnp.sin(y)) + jnp.sum(log_dets**2)

    grads = [jax.jit(jax.grad(partial(loss, kernel=kernel)))(made) for kernel in (False, True)]
    check_close(grads[1], grads[0], 1e-4)


def test_an_ensemble_maps_over_the_kernel():
    """Check `jax.vmap` over networks, which adds an axis to the grid of programs."""
    members = [build("H<D", afflow.Affine()) for _ in range(2)]
    members[1] = jax.tree.map(lambda a: 0.5 * a, members[1])
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    z, context = drawn(2, 7), drawn(2, 2)

    def sample(made, z, context):
        solver = afflow.Incremental(kernel=True)
        return afflow.MaskedAutoregressive(made, afflow.Affine(), solver).forward(z, context)

    found = jax.jit(jax.vmap(sample))(stacked, z, context)
    for i, made in enumerate(members):
        np.testing.assert_allclose(found[i], sample(made, z[i], context[i]), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("network", "univariate"), CASES)
def test_kernel_lowers_for_a_gpu(network, univariate):
    """Lower the kernel for a GPU. This needs no GPU, and fails for operations unknown to Pallas."""
    univariate = UNIVARIATES[univariate]()
    made = build(network, univariate)
    layer = afflow.MaskedAutoregressive(made, univariate, afflow.Incremental(kernel=True))
    z = jax.ShapeDtypeStruct((100, *made.event_shape), jnp.float32)
    context = made.context_shape and jax.ShapeDtypeStruct((100, *made.context_shape), jnp.float32)
    mesh = AbstractMesh((1,), ("x",), (AxisType.Auto,), abstract_device=GPU)
    sample = jax.jit(jax.vmap(layer.forward_and_log_det, (0, None if context is None else 0)))
    with use_abstract_mesh(mesh):
        program = sample.trace(z, context).lower(lowering_platforms=("cuda",)).as_text()
    assert "decode_masked_network" in program


def test_each_device_of_a_mesh_runs_the_kernel_on_its_events():
    """Lower the density of 1024 events on eight GPUs: each one decodes 128."""
    made, solver = build("H<D", afflow.Affine()), afflow.Incremental(kernel=True)
    layer = afflow.MaskedAutoregressive(made, afflow.Affine(), solver)
    flow = afflow.Flow(afflow.Normal(7), afflow.Inverse(layer))
    mesh = AbstractMesh((8,), ("data",), (AxisType.Explicit,), abstract_device=GPU)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((1024, 7), jnp.float32, sharding=rows)
    traced = jax.jit(flow.log_prob).trace(x, jnp.ones(2, jnp.float32))
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    (call,) = [line for line in program.splitlines() if "decode_masked_network" in line]
    assert "tensor<7x128xf32>" in call


def test_blocks_hold_all_slots_and_no_more_units_than_fit():
    made = build("three blocks", afflow.Affine())
    layers = made._serial_layers(None)
    cuts = choose_block_cuts(layers, 9, 64)
    assert (cuts[0], cuts[-1]) == (0, 9)
    assert len(cuts) > 3
    assert np.all(np.diff(cuts) > 0)
    for layer in layers:
        counts = np.bincount(layer.cols, minlength=9)
        assert all(counts[lo:hi].sum() <= 64 for lo, hi in pairwise(cuts) if hi - lo > 1)


@pytest.mark.parametrize(
    ("univariate", "hidden", "activation", "reason"),
    [
        (lambda: afflow.univariates.MixtureCDF(2), (8,), jax.nn.relu, "univariate"),
        (afflow.Affine, (400,), jax.nn.relu, "400 units"),
        (afflow.Affine, (8,), jax.nn.softmax, "softmax"),
    ],
)
def test_kernel_says_what_it_cannot_decode(univariate, hidden, activation, reason):
    """Check that the default falls back to steps, and that `kernel=True` is an error."""
    univariate = univariate()
    made = afflow.MADE(
        2, *univariate.context_shape, hidden, activation=activation, rngs=nnx.Rngs(0)
    )
    made = jax.tree.map(lambda a: a.astype(jnp.float32), made)
    emit, z = univariate.forward_and_log_det, drawn(2, 3)
    assert reason in find_obstacle(made._serial_layers(None), emit, z, activation)
    layer = afflow.MaskedAutoregressive(made, univariate, afflow.Incremental(kernel=True))
    with pytest.raises(ValueError, match=reason):
        jax.vmap(layer.forward)(drawn(3, 2))


def test_kernel_is_for_float32_and_for_made():
    made = afflow.MADE(2, 2, rngs=nnx.Rngs(0))
    layers = made._serial_layers(None)
    emit = afflow.Affine().forward_and_log_det
    assert "float64" in find_obstacle(layers, emit, jnp.zeros((2, 3), jnp.float64), jax.nn.relu)
    nade = afflow.conditioners.NADE(2, 2, 4, rngs=nnx.Rngs(0))
    layer = afflow.MaskedAutoregressive(nade, afflow.Affine(), afflow.Incremental(kernel=True))
    with pytest.raises(ValueError, match="MADE for the kernel, got NADE"):
        layer.forward(jnp.zeros(2))


@pytest.mark.parametrize("name", UNIVARIATES)
def test_lanes_evaluate_univariates_on_a_tile(name):
    univariate = UNIVARIATES[name]()
    size = univariate.context_shape[0]
    x, params = drawn(8), drawn(8, size, seed=2)
    f = univariate.forward_and_log_det
    assert is_tileable(f, x[0], params[0])
    lanes = as_lanes([x], ()), as_lanes(list(params.T), (size,))
    found = [lane.item() for lane in on_tile(f, *lanes)]
    check_close(found, list(jax.vmap(f)(x, params)), 1e-6)
