"""Flows and bases: batching, broadcasting, errors, NaN and the edge of the support."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import autoregressive, randomize, repeated

import afflow
from afflow._tools.calls import round_up
from afflow.models import flow as distributions

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def conditional():
    """Return a conditional flow with one autoregressive layer."""
    return afflow.Flow(afflow.Normal(3), autoregressive(3, context_dim=2))


@pytest.fixture(scope="module")
def flow():
    """Return a flow with one autoregressive layer."""
    return afflow.Flow(afflow.Normal(3), autoregressive(3))


def test_log_prob_is_the_change_of_variables(flow):
    x = jax.random.normal(KEY, (3,))
    z = flow.bijector.inverse(x)
    jacobian = jax.jacfwd(flow.bijector.inverse)(x)
    expected = jax.scipy.stats.norm.logpdf(z).sum() + jnp.log(jnp.abs(jnp.linalg.det(jacobian)))
    np.testing.assert_allclose(flow.log_prob(x), expected, rtol=1e-12)


def test_leading_axes_broadcast(conditional):
    x = jax.random.normal(KEY, (4, 1, 3))
    context = jax.random.normal(KEY, (5, 2))
    log_prob = conditional.log_prob(x, context)
    assert log_prob.shape == (4, 5)
    np.testing.assert_allclose(log_prob[2, 3], conditional.log_prob(x[2, 0], context[3]))
    np.testing.assert_allclose(log_prob[:, 1], conditional.log_prob(x[:, 0], context[1]))
    assert conditional.log_prob(x[:0], context[0]).shape == (0, 1)


def test_sample_shapes(conditional, flow):
    context = jnp.ones((5, 2))
    assert conditional.sample(KEY, (), context).shape == (5, 3)
    assert conditional.sample(KEY, (4,), context).shape == (4, 5, 3)
    assert conditional.sample(KEY, 4, context[0]).shape == (4, 3)
    assert flow.sample(KEY).shape == (3,)
    assert flow.sample(KEY, (2, 2)).shape == (2, 2, 3)
    assert flow.sample(KEY, 0).shape == (0, 3)


def test_sample_matches_log_prob(conditional):
    context = jax.random.normal(KEY, (5, 2))
    x, log_prob = conditional.sample_and_log_prob(KEY, 7, context)
    np.testing.assert_allclose(log_prob, conditional.log_prob(x, context), rtol=1e-9)
    np.testing.assert_array_equal(x, conditional.sample(KEY, 7, context))


def test_samples_follow_the_density():
    """Check that the mean of 1 / p over samples inside a box estimates the volume of the box."""
    flow = afflow.Flow(afflow.Normal(2), autoregressive(2))
    x, log_prob = map(np.asarray, flow.sample_and_log_prob(KEY, 100_000))
    inside = (np.abs(x - np.median(x, 0)) < 0.5).all(1)
    weights = np.where(inside, np.exp(-log_prob), 0.0)
    error = weights.std() / np.sqrt(len(x))
    assert error < 0.02
    assert abs(weights.mean() - 1) < 5 * error


def test_old_keys_work(flow):
    new, old = jax.random.key(3), jax.random.PRNGKey(3)
    np.testing.assert_array_equal(flow.sample(new, 2), flow.sample(old, 2))


@pytest.mark.parametrize("default", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_raw_keys_are_known_by_their_length(flow, default, kind):
    raw, typed = jax.random.PRNGKey(3, impl=kind), jax.random.key(3, impl=kind)
    if "rbg" in kind and "rbg" in default:
        typed = jax.random.key(3, impl=default)
    expected = flow.sample(typed, 2)
    with jax.default_prng_impl(default):
        np.testing.assert_array_equal(flow.sample(raw, 2), expected)
        np.testing.assert_array_equal(afflow.Ensemble([flow]).sample(raw, 2).shape, (2, 3))
    with pytest.raises(ValueError, match="Expected a key"):
        flow.sample(np.zeros(3, np.uint32))


def test_nan_stays_nan(flow):
    x = jnp.ones((2, 3)).at[0, 1].set(jnp.nan)
    assert np.isnan(flow.log_prob(x)).tolist() == [True, False]
    uniform = afflow.Flow(afflow.Uniform(2), afflow.Reverse(2))
    assert np.isnan(uniform.log_prob(jnp.array([jnp.nan, 0.5])))


def test_nan_in_noise_reaches_no_earlier_coordinate():
    bijector = autoregressive(4)
    y = jax.vmap(bijector.forward)(jnp.zeros((2, 4)).at[0, 2].set(jnp.nan))
    np.testing.assert_allclose(y[0, :2], y[1, :2])
    assert np.isnan(y[0, 2:]).all()
    assert np.isfinite(y[1]).all()


def test_outside_the_support():
    flow = afflow.Flow(
        afflow.Uniform(2, -1.0, 1.0), randomize(afflow.Elementwise(afflow.Affine(), 2))
    )
    x = jnp.array([[50.0, 0.0], [jnp.inf, 0.0], [0.0, -1e30]])
    assert (flow.log_prob(x) == -jnp.inf).all()
    grads = jax.vmap(jax.grad(flow.log_prob))(x[jnp.array([0, 2])])
    assert np.isfinite(grads).all()


def test_gradients_far_out_do_not_overflow():
    """Check noise beyond the square root of the largest float32, from six layers of slope e^6."""

    def layer(rngs):
        steep = afflow.Elementwise(afflow.Affine(), 1)
        steep.params = nnx.Param(jnp.array([[0.0, -50.0]], jnp.float32))
        return steep

    flow = afflow.Flow(afflow.Normal(1), afflow.Repeat(layer, 6, rngs=nnx.Rngs(0)))
    score = jax.value_and_grad(afflow.Flow.log_prob, argnums=(0, 1))
    log_prob, grads = score(flow, jnp.array([1e6], jnp.float32))
    assert log_prob == -jnp.inf
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_uniform_samples_its_box():
    x = jax.vmap(afflow.Uniform(3, 2.0, 5.0).sample)(jax.random.split(KEY, 1000))
    assert 2 <= x.min() < 2.1 < 4.9 < x.max() < 5


@pytest.mark.parametrize("unroll", [False, True])
def test_repeat_equals_chain(unroll):
    repeat = repeated(3, n=4)
    repeat.unroll = unroll
    layers = [jax.tree.map(lambda a, i=i: a[i], repeat.layers) for i in range(4)]
    chain = afflow.Chain(layers)
    x = jax.random.normal(KEY, (3,))
    for a, b in (
        (repeat.forward_and_log_det(x), chain.forward_and_log_det(x)),
        (repeat.inverse_and_log_det(x), chain.inverse_and_log_det(x)),
    ):
        np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
        np.testing.assert_allclose(a[1], b[1], rtol=1e-12)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_depth_adds_no_code(direction):
    def program(n, unroll):
        repeat = repeated(3, n=n)
        repeat.unroll = unroll
        return jax.jit(getattr(repeat, direction)).lower(jnp.ones(3)).as_text().splitlines()

    def num_loops(*args):
        return sum("stablehlo.while" in line for line in program(*args))

    assert len(program(4, False)) == len(program(24, False))
    written_out = direction == "inverse"  # forward contains other loops
    assert num_loops(4, True) == num_loops(4, False) - written_out


def test_a_batch_of_flows():
    """Check `jax.vmap` over the parameters of several layers, in the serial direction."""

    def build(seed):
        made = afflow.MADE(3, 2, (8,), context_dim=1, rngs=nnx.Rngs(0))
        return randomize(afflow.MaskedAutoregressive(made, afflow.Affine()), seed=seed)

    members = [build(seed) for seed in range(3)]
    ensemble = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    z, context = jax.random.normal(KEY, (3,)), jnp.ones(1)
    y = jax.vmap(lambda member: member.forward(z, context))(ensemble)
    for member, row in zip(members, y, strict=True):
        np.testing.assert_allclose(member.forward(z, context), row, rtol=1e-12)
    batch = jax.random.normal(KEY, (2, 3))
    nested = jax.vmap(lambda m: jax.vmap(lambda z: m.forward(z, context))(batch))(ensemble)
    np.testing.assert_allclose(nested[1, 1], members[1].forward(batch[1], context), rtol=1e-12)


def test_second_derivatives_through_sampling():
    bijector = autoregressive(3)
    z = jnp.array([0.3, -0.2, 0.9])

    def score(z):
        return jnp.sum(jnp.sin(bijector.forward(z)))

    hessian = jax.jit(jax.hessian(score))(z)
    gradient, step = jax.jit(jax.grad(score)), 1e-5
    columns = [(gradient(z + step * e) - gradient(z - step * e)) / (2 * step) for e in jnp.eye(3)]
    np.testing.assert_allclose(hessian, jnp.stack(columns), atol=1e-7)


ERRORS = {
    "x of a wrong shape": (lambda f, c: f.log_prob(jnp.ones((4, 2))), r"\(\.\.\., 3\).*\(4, 2\)"),
    "a vector of one column": (
        lambda f, c: afflow.made(1, rngs=nnx.Rngs(0)).log_prob(jnp.ones(4)),
        r"x\[\.\.\., None\]",
    ),
    "classes as numbers": (lambda f, c: c.log_prob(jnp.ones(3), np.array([0, 1])), "one-hot"),
    "fewer than no samples": (lambda f, c: f.sample(KEY, -1), "shape .* got -1"),
    "a fraction of samples": (lambda f, c: f.sample(KEY, 10.0), "shape .* got 10.0"),
    "a flow the wrong way round": (
        lambda f, c: afflow.Flow(f.bijector, f.base),
        "got Chain and Normal|got .* and Normal",
    ),
    "a flow to check": (lambda f, c: afflow.check_bijector(f, key=KEY), "got Flow"),
    "a scalar x": (lambda f, c: f.log_prob(1.0), r"\(\.\.\., 3\).*\(\)"),
    "integer x": (lambda f, c: f.log_prob(np.ones((4, 3), int)), "dequantize"),
    "an unwanted context": (lambda f, c: f.log_prob(jnp.ones(3), jnp.ones(2)), "no context"),
    "a missing context": (lambda f, c: c.log_prob(jnp.ones(3)), "no context"),
    "no context to sample": (lambda f, c: c.sample(KEY), "no context"),
    "a context of a wrong shape": (lambda f, c: c.log_prob(jnp.ones(3), jnp.ones(5)), r"\(5,\)"),
    "batches that do not match": (
        lambda f, c: c.log_prob(jnp.ones((4, 3)), jnp.ones((5, 2))),
        "broadcast",
    ),
    "D=0": (lambda f, c: afflow.maf(0, rngs=nnx.Rngs(0)), "dim >= 1, got 0"),
    "an empty base": (lambda f, c: afflow.Normal(0), "whole number"),
    "a width of 0": (
        lambda f, c: afflow.maf(2, hidden=(0,), rngs=nnx.Rngs(0)),
        r"hidden\[0\] >= 1",
    ),
    "a width of -1": (
        lambda f, c: afflow.made(2, hidden=(4, -1), rngs=nnx.Rngs(0)),
        r"hidden\[1\]",
    ),
    "a negative context": (
        lambda f, c: afflow.iaf(2, context_dim=-1, rngs=nnx.Rngs(0)),
        "context_dim >= 0",
    ),
    "no layers": (
        lambda f, c: afflow.maf(2, num_layers=0, rngs=nnx.Rngs(0)),
        "num_layers >= 1, got 0",
    ),
    "residual of even depth": (
        lambda f, c: afflow.MADE(2, 2, (8, 8), residual=True, rngs=nnx.Rngs(0)),
        "odd number",
    ),
    "an empty chain": (lambda f, c: afflow.Chain([]), "one event_shape"),
    "a chain of two shapes": (
        lambda f, c: afflow.Chain([afflow.Reverse(2), afflow.Reverse(3)]),
        "one event_shape",
    ),
    "two contexts": (
        lambda f, c: afflow.Chain([autoregressive(3, context_dim=1), c.bijector]),
        "one context_shape",
    ),
    "a base of another shape": (
        lambda f, c: afflow.Flow(afflow.Normal(2), f.bijector),
        "one event",
    ),
    "not a permutation": (lambda f, c: afflow.Permutation([0, 0, 1]), "permutation"),
    "parameters that do not match": (
        lambda f, c: afflow.MaskedAutoregressive(
            afflow.MADE(2, 3, rngs=nnx.Rngs(0)), afflow.Affine()
        ),
        "num_params=2",
    ),
    "not a univariate": (lambda f, c: afflow.Elementwise(afflow.Reverse(2), 2), "univariate"),
    "a constant column": (
        lambda f, c: afflow.maf(2, data=np.ones((5, 2)), rngs=nnx.Rngs(0)),
        r"constant columns",
    ),
    "data of a wrong shape": (
        lambda f, c: afflow.maf(2, data=np.ones((5, 3)), rngs=nnx.Rngs(0)),
        r"\(N, 2\), got \(5, 3\)",
    ),
    "unequal copies": (
        lambda f, c: afflow.Repeat(
            lambda rngs: afflow.Permutation.random(9, rngs.params()), 3, rngs=nnx.Rngs(0)
        ),
        "use Chain",
    ),
    "no copies": (
        lambda f, c: afflow.Repeat(lambda rngs: afflow.Reverse(2), 0, rngs=nnx.Rngs(0)),
        "n >= 1",
    ),
    "an empty box": (lambda f, c: afflow.Uniform(2, 1.0, 1.0), "low < high"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected(name, flow, conditional):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call(flow, conditional)


def test_abstract_classes_cannot_be_made():
    class Half(afflow.Bijector):
        def forward_and_log_det(self, x, context=None):
            return x, 0.0

    with pytest.raises(TypeError, match="inverse_and_log_det"):
        Half()


def test_iaf_is_the_maf_read_backwards():
    maf, iaf = (make(4, num_layers=1, rngs=nnx.Rngs(0)) for make in (afflow.maf, afflow.iaf))
    maf, iaf = randomize(maf, seed=1), randomize(iaf, seed=1)
    x = jax.random.normal(KEY, (4,))
    maf_layer, iaf_layer = maf.bijector.bijectors[0], iaf.bijector.bijectors[0]
    np.testing.assert_allclose(iaf_layer.forward(x), maf_layer.inverse(x))


def test_deep_flows_are_repeated():
    flow = afflow.maf(2, num_layers=9, hidden=(4,), rngs=nnx.Rngs(0))
    assert isinstance(flow.bijector.bijectors[0], afflow.Repeat)


def test_similar_numbers_of_samples_share_a_program():
    """Check that 999 samples are the first of 1000, without another compilation."""
    flow = afflow.made(2, hidden=(4,), rngs=nnx.Rngs(0))
    more = flow.sample(KEY, 1000)
    compiled = distributions._sample._cache_size()
    np.testing.assert_array_equal(flow.sample(KEY, 999), more[:999])
    np.testing.assert_array_equal(flow.sample(KEY, (9, 111)).reshape(999, 2), more[:999])
    assert distributions._sample._cache_size() == compiled
    assert [round_up(n) for n in (0, 1, 15, 16, 17, 100, 1000)] == [0, 1, 15, 16, 18, 104, 1024]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_chunk_at_a_time(conditional, chunk):
    """Check that `chunk` does not change events, contexts and samples."""
    x, context = jax.random.normal(KEY, (7, 3)), jnp.ones((5, 1, 2))
    whole = conditional.log_prob(x, context)
    np.testing.assert_allclose(conditional.log_prob(x, context, chunk=chunk), whole, rtol=1e-12)
    drawn = conditional.sample_and_log_prob(KEY, 6, context[0])
    parts = conditional.sample_and_log_prob(KEY, 6, context[0], chunk=chunk)
    for part, whole in zip(parts, drawn, strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-12)
    with pytest.raises(ValueError, match="chunk >= 1"):
        conditional.sample(KEY, 6, context, chunk=0)


def test_chunks_of_any_number_of_events_run_one_program(flow):
    def count_products(size):
        score = jax.jit(lambda x: flow.log_prob(x, chunk=4))
        return score.lower(jnp.zeros((size, 3))).as_text().count("dot_general")

    assert count_products(8) == count_products(7) > 0
    assert flow.log_prob(jnp.zeros((0, 3)), chunk=4).shape == (0,)


def test_a_chunk_bounds_the_memory(flow):
    def temporaries(chunk):
        def score(x):
            return flow.log_prob(x, chunk=chunk)

        compiled = jax.jit(score).lower(jnp.zeros((4096, 3))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(64) < temporaries(None) / 4
