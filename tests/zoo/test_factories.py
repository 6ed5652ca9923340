"""Properties of the flow of every factory."""

import subprocess
import sys
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import FLOWS, KEY, cast, randomize
from scipy import stats

import afflow

CONTEXT = jnp.array([0.7, -1.2])
FAR = jnp.array([0.0, 30.0, -1e4, 1e6, -1e6, jnp.nan])


@pytest.mark.parametrize("name", FLOWS)
def test_flow(name):
    """Check both directions against the change of variables, for events near and far.

    Check also that every parameter matters: a turn of a uniform base, say, does not.
    """
    flow, tol = FLOWS[name](), 1e-4 if name == "cnf" else 1e-9
    x, of_samples = flow.sample_and_log_prob(KEY, 3, CONTEXT)
    log_prob, by_x, by_context, base = _jacobians(flow, x, CONTEXT)
    np.testing.assert_allclose(log_prob, base + np.linalg.slogdet(by_x)[1], rtol=tol)
    np.testing.assert_allclose(of_samples, log_prob, rtol=tol)
    assert (by_context != 0).any((0, 2)).all()

    pattern = jnp.cos(jnp.arange(x[0].size)).reshape(x[0].shape)
    x = jnp.concatenate([x, jnp.tensordot(FAR, pattern, 0)])
    single, grads = _gradients(*cast((flow, x, CONTEXT), jnp.float32))
    chex.assert_type(single, jnp.float32)
    np.testing.assert_allclose(single[:3], log_prob, rtol=5e-4, atol=5e-4)
    assert np.isnan(single).tolist() == [False] * (len(x) - 1) + [True]
    chex.assert_tree_all_finite(jax.tree.map(lambda a: a[:-1], grads))
    by_parameters = jax.tree_util.tree_leaves_with_path(nnx.state(grads[0], nnx.Param))
    assert not [path for path, a in by_parameters if a.size and not a[:-1].any()]


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, None))
def _jacobians(flow, x, context):
    """Return the log-density, the Jacobians of the noise, and the log-density of the noise."""

    def noise(x, context):
        z = flow.bijector.inverse(x, context)
        return z.reshape(-1), flow.base.log_prob(z, context)

    (by_x, by_context), base = jax.jacrev(noise, (0, 1), has_aux=True)(x, context)
    return flow.log_prob(x, context), by_x.reshape(x.size, x.size), by_context, base


@jax.jit
@partial(jax.vmap, in_axes=(None, 0, None))
@partial(jax.value_and_grad, argnums=(0, 1))
def _gradients(flow, x, context):
    """Return the log-density, and its gradients by the flow and by `x`."""
    return flow.log_prob(x, context)


STARTS = {
    "maf": afflow.maf,
    "iaf": afflow.iaf,
    "made": afflow.made,
    "nsf": afflow.nsf,
    "coupling_flow": afflow.coupling_flow,
    "realnvp": afflow.realnvp,
    "nice": afflow.zoo.nice,
    "nsf_coupling": afflow.nsf_coupling,
    "umnn": partial(afflow.zoo.umnn, embedding=2, integrand=(2,), num_layers=1),
    "sospf": partial(afflow.zoo.sospf, degree=1, num_layers=1),
    "bpf": partial(afflow.zoo.bpf, degree=2, num_layers=1),
    "cnf": afflow.cnf,
}


@pytest.mark.parametrize("name", STARTS)
def test_starts_as_the_standardised_base(name):
    data = np.asarray(5 + 3 * jax.random.normal(KEY, (50, 3)))
    flow = STARTS[name](3, hidden=(4,), context_dim=1, data=data, rngs=nnx.Rngs(0))
    standardized = (data - data.mean(0)) / data.std(0)
    expected = stats.norm.logpdf(standardized).sum(1) - np.log(data.std(0)).sum()
    np.testing.assert_allclose(flow.log_prob(data, jnp.ones(1)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "make", [afflow.naf, afflow.zoo.gaussianization_flow], ids=["naf", "gauss"]
)
def test_mixtures_start_close_to_the_standardised_base(make):
    """Check that mixtures with separate components start close to a standard normal."""
    data = np.asarray(5 + 3 * jax.random.normal(KEY, (500, 3)))
    flow = make(3, data=data, rngs=nnx.Rngs(0))
    standardized = (data - data.mean(0)) / data.std(0)
    expected = stats.norm.logpdf(standardized).sum(1) - np.log(data.std(0)).sum()
    assert abs(np.asarray(flow.log_prob(data)).mean() - expected.mean()) < 0.3


def test_contexts_are_standardised_too():
    rng = np.random.default_rng(0)
    x, context = rng.normal(size=(50, 2)), 1000 + 5 * rng.normal(size=(50, 3))
    options = {"hidden": (4,), "context_dim": 3}
    plain = randomize(afflow.maf(2, data=x, **options, rngs=nnx.Rngs(0)))
    flow = randomize(afflow.maf(2, data=(x, context), **options, rngs=nnx.Rngs(0)))
    z = (context - context.mean(0)) / context.std(0)
    np.testing.assert_allclose(flow.log_prob(x, context), plain.log_prob(x, z), rtol=1e-9)
    found = flow.sample(KEY, context=context), plain.sample(KEY, context=z)
    np.testing.assert_allclose(*found, rtol=1e-9)
    for wrong in ((x, context[:, :2]), (x[:, :1], context), (x, context[0])):
        with pytest.raises(ValueError, match=r"shape \(N, [23]\)"):
            afflow.maf(2, data=wrong, **options, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="contexts"):
        afflow.maf(2, data=(x, context), rngs=nnx.Rngs(0))


def kinds():
    """Return a `PerDimension` of two different univariates."""
    return afflow.univariates.PerDimension([afflow.Affine(), afflow.univariates.Additive()])


def keep(dim, rngs):
    """Return the identity, as a value of `mix`."""
    return afflow.Permutation(range(dim))


def test_kinds_of_columns_stay_with_them():
    options = {"hidden": (4,), "univariate": kinds, "rngs": nnx.Rngs(0)}
    for factory in (afflow.maf, afflow.iaf):
        for num_layers in (2, 3):
            with pytest.raises(ValueError, match="keep the order"):
                factory(2, num_layers=num_layers, **options)
            factory(2, num_layers=num_layers, mix=keep, **options)
        factory(2, num_layers=1, **options)
    afflow.made(2, **options)
    with pytest.raises(ValueError, match="each coordinate"):
        afflow.made(3, **options)
    with pytest.raises(ValueError, match="each coordinate"):
        afflow.Elementwise(kinds(), (2, 2))
    with pytest.raises(ValueError, match="each coordinate"):
        afflow.coupling_flow(3, num_layers=1, **(options | {"univariate": three_kinds}))


def three_kinds():
    """Return a `PerDimension` of three univariates."""
    return afflow.univariates.PerDimension([afflow.Affine()] * 3)


WRONG = {
    "a width": ({"hidden": 64}, r"write \(64,\)"),
    "three arrays": ({"data": (1, 2, 3)}, "a pair of it and contexts, got 3"),
    "a univariate": ({"univariate": afflow.Affine()}, r"univariate=lambda: Affine"),
    "angles in units": (
        {"univariate": afflow.univariates.CircularSpline, "data": np.eye(4, 2)},
        "no data and no columns",
    ),
    "a shape of context": ({"context_dim": (3,)}, "whole number context_dim"),
    "a seed": ({"rngs": 0}, "nnx.Rngs"),
    "a fraction": ({"num_layers": 1.0}, "whole number num_layers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_say_how_to_mend(name):
    given, message = WRONG[name]
    for factory in (afflow.maf, afflow.coupling_flow):
        with pytest.raises(ValueError, match=message):
            factory(2, **({"rngs": nnx.Rngs(0)} | given))


def test_sizes_may_be_of_numpy():
    sizes = {"num_layers": np.int64(1), "hidden": np.array([4]), "context_dim": np.int64(2)}
    flow = afflow.maf(np.int64(2), **sizes, rngs=nnx.Rngs(0))
    assert flow.sample(KEY, np.int64(3), CONTEXT).shape == (3, 2)
    assert flow.sample(KEY, (np.int64(3), 1), CONTEXT).shape == (3, 1, 2)
    assert "hidden=(4,)" in repr(flow)


def test_the_network_of_a_leaky_bnaf_is_not_bounded():
    """Check that far from the data the slope is a product of the weights and the leaks."""
    layer = afflow.bijectors.BNAF(1, (4, 3), leak=0.1, rngs=nnx.Rngs(0))
    _, log_slope = layer.inverse_and_log_det(jnp.array([1e4]))
    product = jnp.ones(1)
    for blocks in layer.network.blocks(None):
        product = (0.1 if product.size > 1 else 1.0) * blocks.diagonal[0] @ product
    np.testing.assert_allclose(jnp.exp(log_slope), (1 + product[0]) / 2, rtol=1e-9)
    flow = afflow.bnaf(2, leak=0.1, num_layers=1, hidden=(3,), rngs=nnx.Rngs(0))
    layers = [m for _, m in nnx.iter_graph(flow) if isinstance(m, afflow.bijectors.BNAF)]
    assert [layer.leak for layer in layers] == [0.1]
    for wrong in (-0.1, 1.0, "text"):
        with pytest.raises(ValueError, match="number leak in"):
            afflow.bnaf(2, leak=wrong, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_bnaf_starts_close_to_the_identity(leak):
    layer = afflow.bijectors.BNAF(2, (16, 16), leak=leak, rngs=nnx.Rngs(0))
    y = jnp.linspace(-2, 2, 9)
    y = jnp.stack(jnp.meshgrid(y, y), -1).reshape(-1, 2)
    x, log_det = jax.jit(jax.vmap(layer.inverse_and_log_det))(y)
    assert np.abs(x - y).max() < 0.3
    assert np.abs(log_det).max() < 0.3


def test_circular_nsf_integrates_to_one_and_closes():
    flow = FLOWS["circular_nsf"]()
    angles = -jnp.pi + 2 * jnp.pi / 200 * (jnp.arange(200) + 0.5)
    grid = jnp.stack(jnp.meshgrid(angles, angles), -1)  # (200, 200, 2)
    density = jnp.exp(flow.log_prob(grid, CONTEXT))
    np.testing.assert_allclose(density.mean() * (2 * np.pi) ** 2, 1, atol=2e-3)
    seams = jnp.concatenate([grid[:, 0], grid[0]]).at[:200, 0].set(jnp.pi).at[200:, 1].set(jnp.pi)
    across = jnp.where(seams == jnp.pi, -jnp.pi, seams)
    here, there = (flow.log_prob(x, CONTEXT) for x in (seams - 1e-9, across + 1e-9))
    np.testing.assert_allclose(here, there, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "num_params", "hidden"),
    [
        (afflow.maf, 2, (64, 64)),
        (partial(afflow.maf, residual=True), 2, (64, 64, 64)),
        (afflow.nsf, 23, (64, 64)),
    ],
)
def test_reverse_mode_keeps_one_number_a_unit(make, num_params, hidden):
    """Check memory per layer: one number per hidden unit, the parameters, and a few events."""
    dim, batch = 5, 500

    def temporaries(num_layers):
        flow = make(dim, num_layers=num_layers, hidden=hidden, rngs=nnx.Rngs(0))
        gradient = jax.grad(lambda flow, x: flow.log_prob(x).mean())
        compiled = jax.jit(gradient).lower(flow, jnp.zeros((batch, dim))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    kept = (temporaries(20) - temporaries(10)) / (10 * batch * jnp.zeros(()).dtype.itemsize)
    assert sum(hidden) < kept <= sum(hidden) + dim * (num_params + 5)


STRICT = """
import jax, numpy as np, afflow
from flax import nnx
jax.config.update("jax_numpy_dtype_promotion", "strict")
x, h = np.random.default_rng(0).normal(size=(2, 40, 2)).astype("f")
options = {"key": jax.random.key(0), "max_epochs": 1, "progress": False}
for make in (afflow.maf, afflow.nsf, afflow.realnvp, afflow.bnaf):
    sizes = {"num_layers": 2, "hidden": (4,), "context_dim": 2, "data": (x, h)}
    flow, _ = afflow.fit(make(2, **sizes, rngs=nnx.Rngs(0)), x, context=h, **options)
    assert flow.sample(jax.random.key(0), 3, h[0]).shape == (3, 2)
model, _ = afflow.fit(afflow.nade(2, hidden=3, rngs=nnx.Rngs(0)), (x > 0).astype(int), **options)
assert model.sample(jax.random.key(0), 3).shape == (3, 2)
"""


def test_strict_promotion_of_types():
    """Check strict type promotion in a new process, because the tests mix float types freely."""
    subprocess.run([sys.executable, "-c", STRICT], check=True)


def test_images_given_images():
    """Check that each pixel of the context has an effect, and that a wrong shape is an error."""
    sizes = {"num_levels": 2, "num_steps": 2, "width": 4, "context_dim": (8, 8, 1)}
    flow = randomize(afflow.zoo.glow((8, 8, 1), **sizes, rngs=nnx.Rngs(0)), 0.1)
    x, context = jax.random.normal(KEY, (8, 8, 1)), jax.random.normal(KEY, (8, 8, 1))
    gradient = jax.jacobian(lambda context: flow.bijector.inverse(x, context))(context)
    assert (gradient != 0).any((0, 1, 2)).all()
    drawn, log_prob = flow.sample_and_log_prob(KEY, 3, context)
    np.testing.assert_allclose(flow.log_prob(drawn, context), log_prob, rtol=1e-9)
    with pytest.raises(ValueError, match="multiple of the 4 x 4 pixels"):
        afflow.zoo.glow((8, 8, 1), context_dim=(3, 3, 1), rngs=nnx.Rngs(0))


def test_the_base_of_glow():
    sizes = {"num_levels": 1, "num_steps": 1, "width": 2, "rngs": nnx.Rngs(0)}
    base = afflow.distributions.StudentT((4, 4, 1), df=3.0)
    flow, normal = (afflow.zoo.glow((4, 4, 1), base=b, **sizes) for b in (base, None))
    assert flow.base is base
    assert isinstance(normal.base, afflow.Normal)
    with pytest.raises(ValueError, match="event_shape"):
        afflow.zoo.glow((4, 4, 1), base=afflow.Normal(16), **sizes)
    with pytest.raises(ValueError, match="Expected a Distribution as base"):
        afflow.zoo.glow((4, 4, 1), base=afflow.Normal, **sizes)


MASKED = [
    afflow.maf,
    afflow.iaf,
    afflow.nsf,
    afflow.naf,
    afflow.zoo.umnn,
    afflow.zoo.sospf,
    afflow.zoo.bpf,
]


@pytest.mark.parametrize("factory", [*MASKED, afflow.zoo.circular_nsf])
def test_factories_of_masked_layers_take_the_options_of_maf(factory):
    """Check that each option reaches the layers of the flow."""
    flow = factory(
        3,
        num_layers=1,
        hidden=(6, 6, 6),
        activation=jnp.sin,
        residual=True,
        dtype=jnp.bfloat16,
        solver=afflow.Jacobi(),
        mix=lambda dim, rngs: afflow.Permutation([2, 0, 1]),
        rngs=nnx.Rngs(0),
    )
    modules = [module for _, module in nnx.iter_modules(flow)]
    (made,) = (module for module in modules if isinstance(module, afflow.MADE))
    assert made.activation is jnp.sin
    assert made.residual
    assert made.dtype == jnp.bfloat16
    (layer,) = (m for m in modules if isinstance(m, afflow.MaskedAutoregressive))
    assert layer.solver == afflow.Jacobi()
    assert any(isinstance(m, afflow.Permutation) and m.order == (2, 0, 1) for m in modules)


@pytest.mark.parametrize("factory", [afflow.realnvp, afflow.nsf_coupling, afflow.zoo.nice])
def test_factories_of_couplings_take_the_options_of_coupling_flow(factory):
    permutation = afflow.Permutation([1, 2, 0])
    options = {"activation": jnp.sin, "mix": lambda dim, rngs: permutation}
    flow = factory(3, num_layers=1, hidden=(6,), context_dim=2, **options, rngs=nnx.Rngs(0))
    modules = [module for _, module in nnx.iter_modules(flow)]
    (network,) = (module for module in modules if isinstance(module, afflow.MLP))
    assert network.activation is jnp.sin
    assert permutation in modules


def test_bnaf_takes_a_solver_and_a_mix():
    options = {"solver": afflow.Jacobi(), "mix": lambda dim, rngs: afflow.Permutation([1, 0])}
    flow = afflow.bnaf(2, num_layers=1, hidden=(3,), **options, rngs=nnx.Rngs(0))
    modules = [module for _, module in nnx.iter_modules(flow)]
    assert [m.solver for m in modules if isinstance(m, afflow.bijectors.BNAF)] == [afflow.Jacobi()]
    assert any(isinstance(m, afflow.Permutation) for m in modules)
