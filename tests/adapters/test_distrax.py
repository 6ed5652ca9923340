"""Flows in distrax and TFP, and distributions and bijectors of distrax and TFP in flows."""

import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

distrax = pytest.importorskip("distrax")
tfp = pytest.importorskip("tensorflow_probability.substrates.jax")
tfb, tfd = tfp.bijectors, tfp.distributions
from_distrax, to_distrax = afflow.adapters.from_distrax, afflow.adapters.to_distrax
to_tfp = afflow.adapters.to_tfp

KEY = jax.random.key(0)
DIM, CONTEXT = 2, 3
X = jax.random.normal(jax.random.key(1), (4, DIM))
H = jax.random.normal(jax.random.key(2), (4, CONTEXT))
FLOW = randomize(afflow.coupling_flow(DIM, num_layers=1, hidden=(6,), rngs=nnx.Rngs(0)))
CONDITIONAL = randomize(
    afflow.maf(DIM, num_layers=1, hidden=(6,), context_dim=CONTEXT, rngs=nnx.Rngs(1))
)
LOWER = jnp.array([[1.0, 0.0], [0.5, 2.0]])
SPLINE = jax.random.normal(jax.random.key(3), (DIM, 13))
BASE = distrax.MultivariateNormalDiag(jnp.zeros(DIM), jnp.ones(DIM))
TFP_BASE = tfd.MultivariateNormalDiag(jnp.zeros(DIM), jnp.ones(DIM))


@pytest.fixture(autouse=True)
def _broadcast():
    """Let arrays of different ranks broadcast, as distrax does."""
    with jax.numpy_rank_promotion("allow"):
        yield


def coupling(mask):
    """Return a masked coupling of distrax whose network is a fixed function."""

    def run(x):
        return 0.3 * jnp.sin(x.sum(-1, keepdims=True)[..., None] * jnp.arange(1.0, 14.0))

    spline = partial(
        distrax.RationalQuadraticSpline, range_min=-3.0, range_max=3.0, boundary_slopes="identity"
    )
    return distrax.MaskedCoupling(mask, lambda x: jnp.broadcast_to(run(x), (*x.shape, 13)), spline)


def assert_derivatives(value, log_det, bijector, x, context=None):
    """Check values and log-determinants on a batch against a bijector and differentiation."""
    context = jnp.zeros((len(x), 1)) if context is None else context
    expected = jax.vmap(bijector.forward)(x, context)
    slope = jax.vmap(jax.jacfwd(bijector.forward))(x, context)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    np.testing.assert_allclose(log_det, jnp.linalg.slogdet(slope)[1], rtol=1e-8, atol=1e-10)


# Theirs in flows

BIJECTORS = {
    "elementwise": distrax.Tanh(),
    "block": distrax.Block(distrax.Sigmoid(), 1),
    "batch": distrax.ScalarAffine(1.0, jnp.array([2.0, -3.0])),
    "matrix": distrax.LowerUpperTriangularAffine(LOWER, jnp.ones(2)),
    "spline": distrax.RationalQuadraticSpline(SPLINE, -3.0, 3.0),
    "masked": coupling(jnp.array([True, False])),
    "inverse": distrax.Inverse(distrax.ScalarAffine(1.0, 2.0)),
    "chain": distrax.Chain([distrax.Block(distrax.Tanh(), 1), coupling(jnp.array([False, True]))]),
    "TFP elementwise": tfb.Softsign(),
    "TFP matrix": tfb.ScaleMatvecTriL(LOWER),
    "TFP permutation": tfb.Permute(np.array([1, 0])),
    "TFP chain": tfb.Chain([tfb.Shift(jnp.ones(2)), tfb.ScaleMatvecTriL(LOWER), tfb.Tanh()]),
    "TFP without a pytree": tfb.RealNVP(
        num_masked=1, shift_and_log_scale_fn=lambda x, n, **_: (x, 0.1 * x)
    ),
    "ours": to_distrax(FLOW.bijector),
    "ours in TFP": to_tfp(FLOW.bijector),
}


@pytest.mark.parametrize("name", BIJECTORS)
def test_bijectors_of_theirs(name):
    bijector = from_distrax(BIJECTORS[name], DIM)
    afflow.check_bijector(bijector, key=KEY, triangular=bijector.is_triangular)
    assert not jax.tree.leaves(nnx.state(bijector, nnx.Param))


def test_elementwise_bijectors_are_known_as_such():
    found = [name for name in BIJECTORS if from_distrax(BIJECTORS[name], DIM).is_elementwise]
    assert found == ["elementwise", "batch", "spline", "inverse", "TFP elementwise"]


def test_log_determinants_are_summed_over_the_slices():
    matrix = from_distrax(distrax.LowerUpperTriangularAffine(LOWER, jnp.ones(2)), (3, DIM))
    _, log_det = matrix.forward_and_log_det(jnp.ones((3, DIM)))
    np.testing.assert_allclose(log_det, 3 * jnp.log(2.0), rtol=1e-10)
    shift = from_distrax(tfb.Scale(2.0), (3, DIM))  # TFP returns one constant
    np.testing.assert_allclose(shift.inverse_and_log_det(jnp.ones((3, DIM)))[1], -6 * jnp.log(2.0))


def test_shapes_are_derived_from_arrays():
    assert from_distrax(distrax.ScalarAffine(1.0, jnp.ones((3, 2)))).event_shape == (3, 2)
    assert from_distrax(tfb.Shift(jnp.ones(2))).event_shape == (2,)
    assert from_distrax(distrax.Tanh(), ()).event_shape == ()
    for source in (distrax.Tanh(), distrax.Block(distrax.Tanh(), 1), tfb.ScaleMatvecTriL(LOWER)):
        with pytest.raises(ValueError, match=rf"event_shape for {type(source).__name__}"):
            from_distrax(source)


def test_theirs_in_a_chain_that_is_fitted():
    theirs = from_distrax(distrax.ScalarAffine(jnp.array([1.0, 2.0]), jnp.array([2.0, 3.0])))
    layer = afflow.Elementwise(afflow.Affine(), DIM)
    flow = afflow.Flow(
        from_distrax(distrax.Normal(0.0, 1.0), DIM),
        afflow.Chain([layer, theirs, from_distrax(distrax.Tanh(), DIM)]),
    )
    x = jnp.tanh(5.0 + 0.1 * jax.random.normal(KEY, (64, DIM)) - 4.0)
    options = {"key": KEY, "max_epochs": 9, "batch_size": 16, "progress": False}
    fitted, _ = afflow.fit(flow, x, learning_rate=0.1, **options)
    assert fitted.log_prob(x).mean() > flow.log_prob(x).mean() + 0.1
    before, after = flow.bijector.bijectors[1].held, fitted.bijector.bijectors[1].held
    for one, other in zip(before.arrays, after.arrays, strict=True):
        np.testing.assert_array_equal(one[...], other[...])


def test_equal_sources_compile_once():
    count = []

    @jax.jit
    def score(bijector, x):
        count.append(1)
        return bijector.forward(x)

    for shift in (0.0, 2.0):
        bijector = from_distrax(distrax.Shift(jnp.full(2, shift)))
        np.testing.assert_allclose(score(bijector, X[0]), X[0] + shift)
    assert len(count) == 1
    structure = bijector.held.structure
    assert hash(structure) == hash(from_distrax(distrax.Shift(X[0])).held.structure)


def test_objects_without_a_pytree_are_told_apart():
    def make(slope):
        return tfb.RealNVP(num_masked=1, shift_and_log_scale_fn=lambda x, n, **_: (slope * x, None))

    score = jax.jit(lambda bijector, x: bijector.forward(x))
    for slope in (1.0, 2.0):
        y = score(from_distrax(make(slope), DIM), X[0])
        np.testing.assert_allclose(y, X[0] + jnp.array([0.0, slope * X[0, 0]]))


def test_arrays_take_the_type_of_the_event():
    bijector, x = from_distrax(distrax.Shift(jnp.ones(2))), X[0].astype(jnp.float32)
    base = from_distrax(tfd.Normal(jnp.zeros(2), 1.0))
    assert bijector.forward(x).dtype == base.log_prob(x).dtype == jnp.float32


BASES = {
    "scalar": (distrax.Normal(1.0, 2.0), DIM),
    "batch": (distrax.Gumbel(jnp.arange(2.0), 2.0), None),
    "event": (distrax.MultivariateNormalTri(jnp.ones(2), LOWER), None),
    "rows": (distrax.MultivariateNormalTri(jnp.ones(2), LOWER), (3, 2)),
    "independent": (distrax.Independent(distrax.Laplace(jnp.zeros(2), 1.0), 1), None),
    "transformed": (distrax.Transformed(distrax.Normal(0.0, 1.0), distrax.Tanh()), DIM),
    "mixture": (
        distrax.MixtureSameFamily(
            distrax.Categorical(probs=jnp.array([0.3, 0.7])),
            distrax.Normal(jnp.array([0.0, 2.0]), jnp.ones(2)),
        ),
        DIM,
    ),
    "TFP scalar": (tfd.StudentT(*jnp.array([3.0, 0.0, 1.0])), DIM),
    "TFP event": (tfd.MultivariateNormalTriL(jnp.ones(2), LOWER), None),
    "TFP mixture": (
        tfd.MixtureSameFamily(
            tfd.Categorical(probs=jnp.array([0.3, 0.7])),
            tfd.Normal(jnp.array([0.0, 2.0]), jnp.ones(2)),
        ),
        DIM,
    ),
    "ours": (to_distrax(CONDITIONAL, H), None),
    "ours in TFP": (to_tfp(CONDITIONAL, H), None),
}


@pytest.mark.parametrize(("source", "given"), BASES.values(), ids=BASES)
def test_bases_of_theirs(source, given):
    base = from_distrax(source, given)
    own = (*source.batch_shape, *source.event_shape)
    shape = own if given is None else (given,) if isinstance(given, int) else given
    assert base.event_shape == shape
    assert not jax.tree.leaves(nnx.state(base, nnx.Param))
    x = 0.3 + 0.1 * jax.random.normal(KEY, shape)
    np.testing.assert_allclose(base.log_prob(x), source.log_prob(x).sum(), rtol=1e-10)
    shift = afflow.Standardize(jnp.ones(shape), 2 * jnp.ones(shape))
    flow = afflow.Flow(base, shift)
    drawn, log_prob = flow.sample_and_log_prob(KEY, 3)
    assert drawn.shape == (3, *shape)
    np.testing.assert_allclose(log_prob, flow.log_prob(drawn), rtol=1e-4, atol=1e-6)


def test_samples_of_a_base_are_independent_with_the_moments_of_the_source():
    base = from_distrax(tfd.Normal(jnp.array([1.0, -2.0]), jnp.array([0.5, 2.0])), (3, 2))
    x = afflow.Flow(base, afflow.Standardize(jnp.zeros((3, 2)), jnp.ones((3, 2)))).sample(KEY, 4000)
    mean, scale = jnp.broadcast_to(jnp.array([[[1.0, -2.0]], [[0.5, 2.0]]]), (2, 3, 2))
    assert (abs(x.mean(0) - mean) < 5 * scale / 4000**0.5).all()
    assert (abs(x.std(0) / scale - 1) < 5 / 8000**0.5).all()
    others = jnp.corrcoef(x.reshape(4000, 6).T) - jnp.eye(6)
    assert (abs(others) < 5 / 4000**0.5).all()


WITHOUT_DENSITY = [
    distrax.Categorical(probs=jnp.ones(2)),
    distrax.Deterministic(jnp.zeros(2)),
    distrax.Dirichlet(jnp.ones(2)),
    distrax.ClippedNormal(0.0, 1.0, -1.0, 1.0),
    distrax.Independent(distrax.Quantized(distrax.Normal(jnp.zeros(2), 1.0)), 1),
    distrax.OneHotCategorical(probs=jnp.ones(2), dtype=float),
    distrax.Joint({"x": distrax.Normal(0.0, 1.0)}),
    tfd.Poisson(jnp.ones(2)),
    tfd.Deterministic(jnp.zeros(2)),
    tfd.Dirichlet(jnp.ones(2)),
    tfd.VonMisesFisher(jnp.array([0.0, 1.0]), 1.0),
    tfd.QuantizedDistribution(tfd.Normal(0.0, 1.0)),
    tfd.JointDistributionSequential([tfd.Normal(0.0, 1.0)]),
    tfd.Independent(tfd.Poisson(jnp.ones(2)), 1),
]


@pytest.mark.parametrize("source", WITHOUT_DENSITY, ids=lambda source: type(source).__name__)
def test_sources_without_a_density_are_refused(source):
    with pytest.raises(ValueError, match="density over all coordinates of the event"):
        from_distrax(source, DIM)


def test_unfit_sources_are_refused():
    traced = tfb.RationalQuadraticSpline(jnp.ones((2, 2)), jnp.ones((2, 2)), jnp.ones((2, 1)))
    for source, shape, message in [
        (distrax.Normal(jnp.zeros(2), 1.0), 3, r"ends in \(2,\), got \(3,\)"),
        (tfb.SoftmaxCentered(), 2, r"keeps events of shape \(2,\), got SoftmaxCentered.*\(3,\)"),
        (distrax.Block(distrax.Tanh(), 2), 2, "Block"),
        (distrax.Shift(jnp.ones(2)), 3, r"events of shape \(3,\), got Shift"),
        (traced, 2, "under jax.jit .* got RationalQuadraticSpline"),
        (FLOW, None, "distribution or a bijector of distrax or TFP, got Flow"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_distrax(source, shape)


def test_saving_names_the_way_that_works(tmp_path):
    flow = afflow.Flow(afflow.Normal(2), from_distrax(distrax.Shift(jnp.ones(2))))
    with pytest.raises(ValueError, match=r"got DistraxBijector: build.*save_parameters"):
        afflow.save(flow, tmp_path / "flow.afflow")
    afflow.saving.save_parameters(flow, tmp_path / "arrays")
    other = afflow.Flow(afflow.Normal(2), from_distrax(distrax.Shift(jnp.zeros(2))))
    loaded = afflow.saving.load_parameters(other, tmp_path / "arrays")
    np.testing.assert_array_equal(loaded.log_prob(X), flow.log_prob(X))
    assert (other.log_prob(X) != flow.log_prob(X)).all()


def test_a_spline_of_distrax_is_ours_with_other_logits():
    """Check the recipe of the guide: softly bounded logits, and no slopes at the ends."""
    bins, bound, least = 4, 3.0, 1e-4
    theirs = distrax.RationalQuadraticSpline(SPLINE, -bound, bound, boundary_slopes="identity")
    logits = SPLINE[:, : 2 * bins]
    params = jnp.concatenate([logits / (1 - abs(logits) / 30), SPLINE[:, 2 * bins + 1 : -1]], -1)
    ours = afflow.RationalQuadraticSpline(bins, bound, min_bin=least / 6, min_slope=least)
    x = jnp.linspace(-4.0, 4.0, 41)[:, None] * jnp.ones(DIM)
    found = jax.vmap(jax.vmap(ours.inverse_and_log_det), (0, None))(x, params)
    for one, other in zip(found, theirs.forward_and_log_det(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


# Ours in theirs


@pytest.mark.parametrize("convert", [to_distrax, to_tfp])
@pytest.mark.parametrize(
    ("bijector", "context"), [(FLOW.bijector, None), (CONDITIONAL.bijector, H)], ids=["", "context"]
)
def test_our_bijectors_against_differentiation(convert, bijector, context):
    theirs = distrax.as_bijector(convert(bijector, context))
    y, log_det = theirs.forward_and_log_det(X)
    assert_derivatives(y, log_det, bijector, X, context)
    back, log_det_back = theirs.inverse_and_log_det(y)
    np.testing.assert_allclose(back, X, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-6, atol=1e-8)
    assert theirs.event_ndims_in == theirs.event_ndims_out == 1
    assert not theirs.is_constant_jacobian


def test_events_broadcast_with_batched_bijectors():
    y, log_det = to_distrax(CONDITIONAL.bijector, H).forward_and_log_det(X[0])
    assert (y.shape, log_det.shape) == ((4, DIM), (4,))
    assert to_tfp(CONDITIONAL.bijector, H).forward(X[:, None]).shape == (4, 4, DIM)
    assert to_distrax(afflow.Inverse(afflow.bijectors.Exp((3, 2)))).event_ndims_in == 2


def transformed(library):
    """Return a distribution of a library that is `CONDITIONAL` at the contexts `H`."""
    if library == "distrax":
        return distrax.Transformed(BASE, to_distrax(CONDITIONAL.bijector, H))
    wrapped = to_tfp(CONDITIONAL.bijector, H)
    if library == "TFP in distrax":
        return distrax.Transformed(BASE, wrapped)
    return tfd.TransformedDistribution(TFP_BASE, wrapped)


@pytest.mark.parametrize("library", ["distrax", "TFP", "TFP in distrax"])
def test_their_transformed_distribution_is_the_flow(library):
    d = transformed(library)
    assert (tuple(d.batch_shape), tuple(d.event_shape)) == ((4,), (DIM,))
    np.testing.assert_allclose(d.log_prob(X), CONDITIONAL.log_prob(X, H), rtol=1e-8)
    x = d.sample(seed=jax.random.PRNGKey(0), sample_shape=(5,))
    assert x.shape == (5, 4, DIM)
    np.testing.assert_allclose(d.log_prob(x), CONDITIONAL.log_prob(x, H), rtol=1e-6)


def test_distrax_converts_ours_to_tfp():
    bijector = distrax.to_tfp(to_distrax(FLOW.bijector))
    d = tfd.TransformedDistribution(TFP_BASE, bijector)
    np.testing.assert_allclose(d.log_prob(X), FLOW.log_prob(X), rtol=1e-8)
    d = tfd.TransformedDistribution(distrax.to_tfp(to_distrax(FLOW)), tfb.Exp())
    np.testing.assert_allclose(d.log_prob(jnp.exp(X)), FLOW.log_prob(X) - X.sum(-1), rtol=1e-8)


CHAINS = {
    "distrax": lambda: distrax.Chain([distrax.Block(distrax.Tanh(), 1), to_distrax(FLOW.bijector)]),
    "TFP": lambda: distrax.as_bijector(tfb.Chain([tfb.Tanh(), to_tfp(FLOW.bijector)])),
    "TFP, inverted": lambda: distrax.Inverse(
        tfb.Chain([tfb.Invert(to_tfp(FLOW.bijector)), tfb.Invert(tfb.Tanh())])
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_ours_in_their_chains(name):
    theirs = CHAINS[name]()
    ours = afflow.Chain([FLOW.bijector, from_distrax(distrax.Tanh(), DIM)])
    x = 0.3 * X  # far out, tanh rounds to 1
    assert_derivatives(*theirs.forward_and_log_det(x), ours, x)
    y = jax.vmap(ours.forward)(x)
    np.testing.assert_allclose(theirs.inverse(y), x, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("convert", [to_distrax, to_tfp])
def test_flows_are_distributions(convert):
    d = convert(CONDITIONAL, H)
    assert (tuple(d.batch_shape), tuple(d.event_shape), d.dtype) == ((4,), (DIM,), jnp.float64)
    np.testing.assert_allclose(d.log_prob(X), CONDITIONAL.log_prob(X, H), rtol=1e-10)
    key = jax.random.PRNGKey(0)
    x = d.sample(seed=key, sample_shape=(2, 3))
    assert x.shape == (2, 3, 4, DIM)
    joint = d.sample_and_log_prob if convert is to_distrax else d.experimental_sample_and_log_prob
    again, (x, log_prob) = x, joint(seed=key, sample_shape=(2, 3))
    np.testing.assert_allclose(x, again, rtol=1e-6)
    np.testing.assert_allclose(log_prob, CONDITIONAL.log_prob(x, H), rtol=1e-6)
    drawn = jax.jit(lambda d, key: joint(seed=key, sample_shape=(2, 3)))(d, key)
    np.testing.assert_allclose(drawn[0], x, rtol=1e-6)
    assert convert(FLOW).sample(seed=key, sample_shape=()).shape == (DIM,)


@pytest.mark.parametrize("convert", [to_distrax, to_tfp])
def test_the_noise_of_samples_is_standard_normal(convert):
    x = convert(FLOW).sample(seed=jax.random.PRNGKey(0), sample_shape=(4000,))
    z = jax.vmap(FLOW.bijector.inverse)(x)
    assert (abs(z.mean(0)) < 5 / 4000**0.5).all()
    assert (abs(z.std(0) - 1) < 5 / 8000**0.5).all()


@pytest.mark.parametrize("convert", [to_distrax, to_tfp])
def test_weights_are_leaves_and_do_not_recompile(convert):
    count = []

    @jax.jit
    def score(d, bijector, x):
        count.append(1)
        return d.log_prob(x), bijector.forward(x)

    for flow in (FLOW, randomize(FLOW, seed=5)):
        found = score(convert(flow), convert(flow.bijector), X)
        np.testing.assert_allclose(found[0], flow.log_prob(X), rtol=1e-6)
        np.testing.assert_allclose(found[1], jax.vmap(flow.bijector.forward)(X), rtol=1e-6)
    assert len(count) == 1
    assert len(jax.tree.leaves(convert(FLOW))) == len(jax.tree.leaves(FLOW))
    slope = jax.grad(lambda d: d.log_prob(X).sum())(convert(FLOW)).flow
    expected = jax.grad(lambda flow: flow.log_prob(X).sum())(FLOW)
    for one, other in zip(jax.tree.leaves(slope), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-10)
    mapped = jax.vmap(lambda h, x: convert(CONDITIONAL, h).log_prob(x))(H, X)
    np.testing.assert_allclose(mapped, CONDITIONAL.log_prob(X, H), rtol=1e-6)


def test_batches_in_other_distributions():
    expected, probs = CONDITIONAL.log_prob(X, H), jnp.arange(1.0, 5.0) / 10
    for d in (
        distrax.Independent(to_distrax(CONDITIONAL, H), 1),
        tfd.Independent(to_tfp(CONDITIONAL, H), 1),
    ):
        np.testing.assert_allclose(d.log_prob(X), expected.sum(), rtol=1e-8)
    terms = jnp.log(probs) + CONDITIONAL.log_prob(X[:, None], H)
    mixtures = [
        distrax.MixtureSameFamily(distrax.Categorical(probs=probs), to_distrax(CONDITIONAL, H)),
        tfd.MixtureSameFamily(tfd.Categorical(probs=probs), to_tfp(CONDITIONAL, H)),
    ]
    for d in mixtures:
        mixed = jax.nn.logsumexp(terms, -1)
        np.testing.assert_allclose(d.log_prob(X), mixed, rtol=1e-6)
    one = to_tfp(CONDITIONAL, H)[1]
    np.testing.assert_allclose(one.log_prob(X), CONDITIONAL.log_prob(X, H[1]), rtol=1e-8)


def test_more_axes_of_an_event_leave_fewer_of_the_batch():
    bijector = to_tfp(CONDITIONAL.bijector, H)
    assert bijector.experimental_batch_shape() == (4,)
    assert bijector.experimental_batch_shape(x_event_ndims=2) == ()
    log_det = bijector.forward_log_det_jacobian(X, event_ndims=2)
    np.testing.assert_allclose(log_det, bijector.forward_log_det_jacobian(X, 1).sum(), rtol=1e-8)


def test_joint_distributions_and_variational_losses_of_tfp():
    def follow(x):
        return tfd.MultivariateNormalDiag(x, jnp.ones(DIM))

    joint = tfd.JointDistributionSequential([to_tfp(FLOW), follow])
    expected = FLOW.log_prob(X[0]) + follow(X[0]).log_prob(X[1])
    np.testing.assert_allclose(joint.log_prob([X[0], X[1]]), expected, rtol=1e-8)

    def find_loss(d):
        seed = jax.random.PRNGKey(0)
        target = lambda x: 1.0 + FLOW.log_prob(x)  # noqa: E731
        return tfp.vi.monte_carlo_variational_loss(target, d, sample_size=8, seed=seed)

    np.testing.assert_allclose(find_loss(to_tfp(FLOW)), -1.0, rtol=1e-6)
    slope = jax.grad(find_loss)(to_tfp(randomize(FLOW, seed=5)))
    assert any(np.abs(leaf).max() > 0.01 for leaf in jax.tree.leaves(slope))


def test_samples_have_derivatives_unless_a_component_is_drawn():
    mixture = afflow.distributions.Mixture([afflow.Normal(2), afflow.Normal(2)])
    drawn = to_tfp(afflow.Flow(mixture, afflow.Reverse(2)))
    assert to_tfp(FLOW).reparameterization_type == tfd.FULLY_REPARAMETERIZED
    assert drawn.reparameterization_type == tfd.NOT_REPARAMETERIZED


def test_a_markov_chain_of_tfp_runs_in_the_noise_of_a_bijector():
    """Check that a chain moved by the flow of the target samples the target."""
    flow = randomize(afflow.Flow(afflow.Normal(DIM), afflow.LU(DIM)), 0.3)
    inner = tfp.mcmc.HamiltonianMonteCarlo(flow.log_prob, step_size=1.2, num_leapfrog_steps=2)
    kernel = tfp.mcmc.TransformedTransitionKernel(inner, to_tfp(flow.bijector))
    run = jax.jit(partial(tfp.mcmc.sample_chain, 100, kernel=kernel, trace_fn=None))
    x = run(current_state=flow.sample(KEY, 40), seed=jax.random.PRNGKey(0)).reshape(-1, DIM)
    slope = jax.jacfwd(flow.bijector.forward)(jnp.zeros(DIM))
    np.testing.assert_allclose(jnp.cov(x.T), slope @ slope.T, atol=0.15)


@pytest.mark.parametrize("convert", [to_distrax, to_tfp])
def test_wrong_parts_and_contexts_are_refused(convert):
    for part, context, message in [
        (CONDITIONAL, None, r"Expected context.shape \(..., 3\), got no context"),
        (CONDITIONAL.bijector, None, "got no context"),
        (FLOW, H, "Expected no context"),
        (FLOW.bijector, H, "Expected no context"),
        (afflow.Normal(2), None, "Expected a Flow or Bijector as part"),
        (distrax.Tanh(), None, "a distrax Tanh: wrap it"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert(part, context)
    with pytest.raises(ValueError, match=r"Expected x.shape \(..., 2\)"):
        convert(FLOW).log_prob(jnp.zeros(3))


# Libraries


def test_parts_without_an_adapter_are_refused_by_the_name_of_the_adapter():
    dist = pytest.importorskip("numpyro.distributions")

    class Own(distrax.Tanh):
        """A bijector of a user of distrax."""

    reverse, normal = afflow.Reverse(2), afflow.Normal(2)
    for call, found in [
        (lambda: afflow.Chain([reverse, distrax.Tanh()]), "Bijector .* a distrax Tanh: .*distrax"),
        (lambda: afflow.Chain([Own()]), "Bijector .* a distrax Own: .*from_distrax"),
        (lambda: afflow.Chain([tfb.Tanh()]), "Bijector .* a TFP Tanh: .*from_distrax"),
        (lambda: afflow.Inverse(distrax.Tanh()), "Bijector .* a distrax Tanh: .*from_distrax"),
        (lambda: afflow.Flow(BASE, reverse), "Distribution .* a distrax Mult.*from_distrax"),
        (lambda: afflow.Flow(TFP_BASE, reverse), "Distribution .* a TFP Mult.*from_distrax"),
        (lambda: afflow.Flow(normal, distrax.Tanh()), "Bijector .* a distrax Tanh: .*from_distrax"),
        (
            lambda: afflow.Repeat(lambda rngs: distrax.Tanh(), 2, rngs=nnx.Rngs(0)),
            "Bijector .* a distrax Tanh: .*from_distrax",
        ),
        (
            lambda: afflow.Chain([dist.transforms.ExpTransform()]),
            "Bijector .* a NumPyro ExpTransform: .*from_numpyro",
        ),
        (lambda: afflow.Flow(dist.Normal(), reverse), "Distribution .* NumPyro Normal: .*numpyro"),
    ]:
        with pytest.raises(ValueError, match=f"Expected a {found}"):
            call()


def test_other_wrong_parts_are_described_as_before():
    with pytest.raises(ValueError, match="in this order, got Permutation and Normal"):
        afflow.Flow(afflow.Reverse(2), afflow.Normal(2))
    with pytest.raises(ValueError, match="Expected a Bijector as bijector, got 3"):
        afflow.Flow(afflow.Normal(2), 3)
    with pytest.raises(ValueError, match="Expected a Conditioner as conditioner, got <distrax"):
        afflow.MaskedAutoregressive(distrax.Tanh(), afflow.Affine())


def test_distrax_is_imported_when_used():
    names = "{'distrax', 'tensorflow_probability'}"
    code = f"import afflow, sys; assert not {names} & set(sys.modules); afflow.adapters.to_distrax"
    subprocess.run(
        [sys.executable, "-c", f"{code}; assert {names} <= set(sys.modules)"], check=True
    )


def test_missing_distrax_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distrax", None)
    for name in ("from_distrax", "to_distrax", "to_tfp"):
        with pytest.raises(ImportError, match=r"pip install 'afflow\[distrax\]'"):
            getattr(afflow.adapters, name)
