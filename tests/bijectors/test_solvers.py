"""Solvers: equal results, and derivatives that do not depend on the solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from registry import autoregressive, batched, cast, events, randomize

import afflow

KEY = jax.random.key(0)
SOLVERS = {
    "incremental": afflow.Incremental(),
    "sequential": afflow.FullPasses(),
    "jacobi": afflow.Jacobi(),
}
LAYERS = {
    "D=1": lambda solver: autoregressive(1, context_dim=1, solver=solver),
    "H<D": lambda solver: autoregressive(7, (3, 5), solver=solver),
    "residual": lambda solver: autoregressive(
        5, (9, 9, 9), residual=True, context_dim=2, solver=solver
    ),
    "segments": lambda solver: autoregressive(17, (20,), solver=solver),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float64, 1e-11), (jnp.float32, 1e-5)])
def test_solvers_agree(layer, dtype, tol):
    results = []
    for solver in SOLVERS.values():
        bijector = cast(LAYERS[layer](solver), dtype)
        x, context = events(bijector, dtype=dtype)
        results.append(jax.jit(batched(bijector.forward_and_log_det))(x, context))
    for y, log_det in results[1:]:
        scale = np.maximum(1, np.abs(y))
        np.testing.assert_array_less(np.abs(y - results[0][0]) / scale, tol)
        np.testing.assert_allclose(log_det, results[0][1], rtol=tol, atol=tol)
        assert y.dtype == log_det.dtype == dtype


@pytest.mark.parametrize("layer", LAYERS)
def test_derivatives_equal_backpropagation_through_the_loop(layer):
    """Check derivatives in reverse mode for all solvers, and in forward mode for `Jacobi`."""
    bijector = LAYERS[layer](afflow.Incremental())
    x, context = events(bijector, num=2)
    emit = Partial(afflow.Affine.forward_and_log_det, bijector.univariate)

    def loss(conditioner, z, context, run):
        def one(z, context):
            return run(conditioner, emit, z, context)

        y, log_dets = batched(one)(z, context)
        return jnp.sum(jnp.sin(y)) + jnp.sum(log_dets**2)

    def implicit(solver):
        return lambda *args: afflow.bijectors.solvers.solve(solver, *args)

    arguments = (bijector.conditioner, x, context)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=3)
    expected = gradient(*arguments, afflow.FullPasses().run)
    for solver in SOLVERS.values():
        found = gradient(*arguments, implicit(solver))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)
    tangent = jax.jit(
        lambda z: jax.jvp(
            lambda z: loss(*arguments[:1], z, context, implicit(SOLVERS["jacobi"])),
            (z,),
            (jnp.cos(z),),
        )[1]
    )
    np.testing.assert_allclose(tangent(x), jnp.sum(expected[1] * jnp.cos(x)), rtol=1e-9)


def test_default_triangular_solves():
    """Check the default Neumann series against the solves of `MADE`."""
    made = randomize(afflow.MADE(4, 2, (8,), activation=jnp.tanh, rngs=nnx.Rngs(0)))
    x, b = jax.random.normal(KEY, (2, 4))
    gain, source = 0.5 * jax.random.normal(KEY, (2, 4, 2))
    plain = afflow.Conditioner
    for own, default in (
        (made.solve_tangent(x, None, gain, b), plain.solve_tangent(made, x, None, gain, b)),
        (
            made.solve_cotangent(x, None, gain, source, b),
            plain.solve_cotangent(made, x, None, gain, source, b),
        ),
    ):
        np.testing.assert_allclose(own, default, rtol=1e-12)


def test_jacobi_counts_its_sweeps_and_is_exact_after_d():
    bijector = autoregressive(6)
    emit = Partial(afflow.Affine.forward_and_log_det, bijector.univariate)
    z = jax.random.normal(KEY, (6,))
    expected = bijector.forward(z)
    # Changes may never reach tol=0, but D sweeps are exact.
    y, _, count = afflow.Jacobi(tol=0.0).run_and_count(bijector.conditioner, emit, z, None)
    np.testing.assert_allclose(y, expected, rtol=1e-12)
    assert 1 < count <= 6
    identity = afflow.MADE(6, 2, (4,), rngs=nnx.Rngs(0))
    _, _, count = afflow.Jacobi().run_and_count(identity, emit, z, None)
    assert count == 1  # the inputs are the solution


@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float64, 1e-11), (jnp.float32, 1e-5)])
def test_blocks_of_a_transformer(dtype, tol):
    """Check blocks of every size, the count of sweeps, and a coupling so weak that few settle."""
    sizes = {"width": 8, "num_layers": 2, "num_heads": 2, "features": 2, "context_dim": 1}
    net = cast(randomize(afflow.conditioners.Transformer(7, 4, **sizes, rngs=nnx.Rngs(0))), dtype)
    layer = afflow.MaskedAutoregressive(net, afflow.Affine())
    z, context = events(layer, dtype=dtype)
    expected = batched(layer.forward_and_log_det)(z, context)
    emit = Partial(afflow.Affine.forward_and_log_det, layer.univariate)
    emit = afflow.bijectors.solvers._over_token(emit, net)
    for block in (1, 3, 7, 50):
        solver = afflow.Jacobi(block=block)
        same = afflow.MaskedAutoregressive(net, afflow.Affine(), solver)
        y, log_det = jax.jit(batched(same.forward_and_log_det))(z, context)
        np.testing.assert_allclose(y, expected[0], rtol=tol, atol=tol)
        np.testing.assert_allclose(log_det, expected[1], rtol=tol, atol=tol)
        assert y.dtype == log_det.dtype == dtype
        count = solver.run_and_count(net, emit, z[0], context[0])[2]
        assert -(-7 // block) <= count <= 7
    weak = jax.tree.map(lambda a: 1e-9 * a, net)
    assert afflow.Jacobi(block=4).run_and_count(weak, emit, z[0], context[0])[2] in (2, 3, 4)


def test_blocks_of_a_made_are_full_passes():
    bijector = autoregressive(6, solver=afflow.Jacobi(block=2))
    emit = Partial(afflow.Affine.forward_and_log_det, bijector.univariate)
    z = jax.random.normal(KEY, (6,))
    found = bijector.solver.run_and_count(bijector.conditioner, emit, z, None)
    expected = afflow.Jacobi().run_and_count(bijector.conditioner, emit, z, None)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_jacobi_never_returns_an_unconverged_answer():
    solver = afflow.Jacobi(max_steps=2)
    weak, strong = autoregressive(6, solver=solver), autoregressive(6, solver=solver)
    weak = jax.tree.map(lambda a: 1e-9 * a, weak)
    z = jax.random.normal(KEY, (6,))
    assert np.isfinite(
        afflow.MaskedAutoregressive(
            weak.conditioner, afflow.Affine(), afflow.Jacobi(1e-6, 2)
        ).forward(z)
    ).all()
    y, log_det = strong.forward_and_log_det(z)
    assert np.isnan(y).all()
    assert np.isnan(log_det)


class Plain(afflow.Conditioner):
    """A conditioner without an incremental step, which records every pass."""

    def __init__(self, conditioner, passes):
        self.conditioner, self.record = conditioner, passes.append
        self.event_shape, self.context_shape = conditioner.event_shape, None
        self.num_params = conditioner.num_params

    def __call__(self, x, context=None):
        jax.debug.callback(lambda: self.record(1))
        return self.conditioner(x)


@pytest.mark.parametrize(("gain", "most"), [(1.0, 12), (1e-4, 5)])
def test_incremental_without_steps_takes_few_passes(gain, most):
    made = jax.tree.map(lambda a: gain * a, autoregressive(12).conditioner)
    passes = []
    emit = Partial(afflow.Affine.forward_and_log_det, afflow.Affine())
    arguments = Plain(made, passes), emit, jax.random.normal(KEY, (12,)), None
    found = afflow.Incremental().run(*arguments)
    jax.effects_barrier()
    assert 1 < len(passes) <= most
    expected = afflow.FullPasses().run(*arguments)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_incremental_without_steps_draws_integers():
    """Check draws from random keys, as in a discrete model."""
    plain = Plain(autoregressive(6).conditioner, [])

    def emit(key, params):
        return jax.random.bernoulli(key, jax.nn.sigmoid(4 * params[0])).astype(int), params[1]

    arguments = plain, Partial(emit), jax.random.split(KEY, 6), None
    found, expected = (
        solver.run(*arguments) for solver in (SOLVERS["incremental"], SOLVERS["sequential"])
    )
    assert found[0].dtype == expected[0].dtype == int
    assert found[0].tolist() == expected[0].tolist()
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-11)


@pytest.mark.parametrize("layer", ["D=1", "H<D", "residual"])
def test_second_derivatives(layer):
    """Check forward-over-reverse derivatives against derivatives of the loop."""
    bijector = LAYERS[layer](afflow.Incremental())
    x, context = events(bijector, num=1)
    z, context = x[0], None if context is None else context[0]
    emit = Partial(afflow.Affine.forward_and_log_det, bijector.univariate)

    def curvature(run):
        def loss(z):
            y, log_dets = run(bijector.conditioner, emit, z, context)
            return jnp.sum(jnp.sin(y)) + jnp.sum(log_dets**2)

        return jax.jit(lambda z: jax.jvp(jax.grad(loss), (z,), (jnp.cos(z),))[1])(z)

    implicit = curvature(lambda *args: afflow.bijectors.solvers.solve(afflow.Incremental(), *args))
    expected = curvature(afflow.FullPasses().run)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(implicit, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_solvers_compose(solver):
    """Check solvers inside `Chain`, `Repeat` and `Inverse`, under `jit`, `vmap` and `scan`."""

    def layer(rngs):
        made = afflow.MADE(3, 2, (8,), rngs=rngs)
        inner = afflow.MaskedAutoregressive(made, afflow.Affine(), solver)
        return afflow.Chain([afflow.Inverse(inner), afflow.Reverse(3), inner])

    bijector = randomize(afflow.Repeat(layer, 2, rngs=nnx.Rngs(0)), 0.2)
    x = jax.random.normal(KEY, (2, 4, 3))

    @jax.jit
    def run(x):
        return jax.lax.scan(lambda _, z: (None, jax.vmap(bijector.forward)(z)), None, x)[1]

    back = jax.jit(jax.vmap(jax.vmap(bijector.inverse)))(run(x))
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("make", [afflow.maf, afflow.iaf])
@pytest.mark.parametrize("solver", ["incremental", "jacobi"])
def test_bfloat16_networks(make, solver):
    """Check that both directions agree with bfloat16 products, and that sums stay in float32."""
    options = {"num_layers": 3, "hidden": (32, 32), "context_dim": 1, "rngs": nnx.Rngs(0)}
    half = make(9, dtype=jnp.bfloat16, solver=SOLVERS[solver], **options)
    half = cast(randomize(half, 0.1), jnp.float32)
    full = make(9, **options)
    full = jax.tree.unflatten(jax.tree.structure(full), jax.tree.leaves(half))
    z = jax.random.normal(KEY, (2, 25, 9), jnp.float32)
    context = jnp.ones((1,), jnp.float32)

    @jax.jit
    def run(z):
        many = jax.vmap(lambda z: half.bijector.forward_and_log_det(z, context))
        return jax.lax.scan(lambda _, z: (None, many(z)), None, z)[1]

    x, log_det = run(z)
    log_prob = half.log_prob(x, context)
    assert x.dtype == log_det.dtype == log_prob.dtype == jnp.float32
    base = jax.vmap(jax.vmap(half.base.log_prob))(z)
    np.testing.assert_allclose(log_prob, base - log_det, atol=1e-3)
    error = np.abs(log_prob - full.log_prob(x, context))
    assert 1e-4 < error.max() < 0.5


def test_bfloat16_gradients_are_wide():
    options = {"num_layers": 3, "hidden": (32, 32), "dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}
    flow = cast(randomize(afflow.iaf(9, **options), 0.1), jnp.float32)
    x = jax.random.normal(KEY, (5, 9), jnp.float32)
    gradient = jax.jit(jax.grad(lambda flow: flow.log_prob(x).mean()))(flow)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(gradient))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_solvers_agree_on_a_trained_flow():
    """Check all solvers after training, with steep scales and strong coupling."""
    x = jax.random.normal(KEY, (600, 6)).cumsum(-1)
    x = x.at[:, ::2].set(0.05 * x[:, ::2] + jnp.sin(3 * x[:, ::2]))

    def flow(solver):
        options = {"hidden": (24,), "solver": solver, "data": x, "rngs": nnx.Rngs(0)}
        options |= {"mix": lambda dim, _: afflow.Reverse(dim), "activation": jax.nn.relu}
        return afflow.maf(6, num_layers=3, **options)

    options = {"max_epochs": 30, "batch_size": 100, "weight_decay": 0.0, "progress": False}
    trained, _ = afflow.fit(flow(afflow.Incremental()), x, key=KEY, **options)
    z = jax.random.normal(KEY, (200, 6))
    for dtype, tol in ((jnp.float64, 1e-11), (jnp.float32, 1e-5)):
        results = []
        for solver in SOLVERS.values():
            leaves = jax.tree.leaves(cast(trained, dtype))
            same = jax.tree.unflatten(jax.tree.structure(flow(solver)), leaves)
            forward = jax.jit(jax.vmap(same.bijector.forward_and_log_det))
            results.append(forward(z.astype(dtype)))
        assert np.ptp(results[0][1]) > 1.0
        for y, log_det in results[1:]:
            np.testing.assert_allclose(y, results[0][0], rtol=tol, atol=tol)
            np.testing.assert_allclose(log_det, results[0][1], rtol=tol, atol=tol)
