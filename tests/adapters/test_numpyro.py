"""Flows in NumPyro: densities, samples, pytrees, transforms, Markov chains and guides."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from numpyro.diagnostics import effective_sample_size
from numpyro.distributions import constraints
from numpyro.handlers import seed, trace
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.reparam import NeuTraReparam
from numpyro.infer.util import log_density, potential_energy
from registry import randomize

import afflow
from afflow.adapters import AutoFlow, from_numpyro, to_numpyro, to_transform

KEY = jax.random.key(0)
DIM, CONTEXT = 2, 3
X = jax.random.normal(jax.random.key(1), (4, DIM))
H = jax.random.normal(jax.random.key(2), (4, CONTEXT))
FLOW = randomize(afflow.maf(DIM, num_layers=1, hidden=(6,), rngs=nnx.Rngs(0)))
CONDITIONAL = randomize(
    afflow.maf(DIM, num_layers=1, hidden=(6,), context_dim=CONTEXT, rngs=nnx.Rngs(1))
)
MEAN, COV, NOISE = jnp.array([1.0, -2.0]), jnp.array([[1.0, 0.8], [0.8, 2.0]]), 1.0
Y = jnp.array([4.0, -3.0])


def gaussian(dim, *, rngs):
    """Return a flow whose samples are normal, with any mean and covariance."""
    layers = [afflow.LU(dim), afflow.Elementwise(afflow.Affine(), dim)]
    return afflow.Flow(afflow.Normal(dim), afflow.Chain(layers))


def moments(flow):
    """Return the mean and the covariance of a flow that `gaussian` built."""
    slope = jax.jacfwd(flow.bijector.forward)(jnp.zeros(DIM))
    return flow.bijector.forward(jnp.zeros(DIM)), slope @ slope.T


def correlated():
    """Draw a latent vector from a correlated normal."""
    numpyro.sample("x", dist.MultivariateNormal(MEAN, COV))


def run_nuts(model, *, warmup=150, samples=300):
    """Return samples of a short Markov chain."""
    chain = MCMC(NUTS(model), num_warmup=warmup, num_samples=samples, progress_bar=False)
    chain.run(jax.random.key(3))
    return chain.get_samples()


def assert_means(x, expected):
    """Check the means of Markov chain samples, to five standard errors."""
    x = np.asarray(x)
    error = x.std(0) / np.sqrt(effective_sample_size(x[None]))
    assert (error < 0.3 * np.asarray(x.std(0))).all()
    assert (np.abs(x.mean(0) - expected) < 5 * error).all()


@pytest.fixture(autouse=True)
def _broadcast():
    """Let arrays of different ranks broadcast, as NumPyro does."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def fitted():
    """Return a guide of `correlated` and its fitted parameters."""
    guide = AutoFlow(correlated, gaussian)
    rate = lambda step: 0.03 / (1 + step / 100)  # noqa: E731
    svi = SVI(correlated, guide, numpyro.optim.Adam(rate), Trace_ELBO(num_particles=16))
    with jax.numpy_rank_promotion("allow"):
        return guide, svi.run(KEY, 600, progress_bar=False).params


def test_numpyro_is_imported_when_used():
    code = "import afflow, sys; assert 'numpyro' not in sys.modules; afflow.adapters.to_numpyro"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'numpyro' in sys.modules"], check=True)


def test_missing_numpyro_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpyro", None)
    with pytest.raises(ImportError, match=r"pip install 'afflow\[numpyro\]'"):
        afflow.adapters.to_numpyro  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'to_stan'"):
        afflow.adapters.to_stan  # noqa: B018


def test_densities_and_gradients_are_those_of_the_flow():
    d = to_numpyro(FLOW)
    np.testing.assert_allclose(d.log_prob(X), FLOW.log_prob(X), rtol=1e-12)
    slope = jax.grad(lambda x: d.log_prob(x).sum())(X)
    np.testing.assert_allclose(slope, jax.grad(lambda x: FLOW.log_prob(x).sum())(X), rtol=1e-10)
    found = jax.grad(lambda d: d.log_prob(X).sum())(d).flow
    expected = jax.grad(lambda flow: flow.log_prob(X).sum())(FLOW)
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    assert all(np.allclose(a, b) for a, b in leaves)
    assert any(np.abs(a).max() > 0.1 for a in jax.tree.leaves(found))


def test_contexts_are_batches():
    d = to_numpyro(CONDITIONAL, H)
    assert (d.batch_shape, d.event_shape, d.event_dim) == ((4,), (2,), 1)
    assert d.sample(KEY, (5,)).shape == d.shape((5,)) == (5, 4, 2)
    expected = CONDITIONAL.log_prob(X, H)
    np.testing.assert_allclose(d.log_prob(X), expected)
    np.testing.assert_allclose(d.to_event(1).log_prob(X), expected.sum())
    mapped = jax.vmap(lambda h, x: to_numpyro(CONDITIONAL, h).log_prob(x))(H, X)
    np.testing.assert_allclose(mapped, expected, rtol=1e-6)
    by_leaf = jax.vmap(lambda h: to_numpyro(CONDITIONAL, h))(H)
    np.testing.assert_allclose(jax.vmap(lambda d, x: d.log_prob(x))(by_leaf, X), expected, 1e-6)


@pytest.mark.parametrize("context", [None, H[:1], H[:, None]], ids=["none", "one", "column"])
def test_plates(context):
    flow = FLOW if context is None else CONDITIONAL

    def model():
        with numpyro.plate("rows", 4, dim=-2), numpyro.plate("columns", 3):
            return numpyro.sample("x", to_numpyro(flow, context))

    site = trace(seed(model, KEY)).get_trace()["x"]
    assert site["value"].shape == (4, 3, 2)
    expected = flow.log_prob(site["value"], context)
    given = site["fn"].log_prob(site["value"], site["intermediates"])
    np.testing.assert_allclose(given, expected, rtol=1e-5)
    total, _ = log_density(model, (), {}, {"x": site["value"]})
    np.testing.assert_allclose(total, expected.sum(), rtol=1e-5)


def test_samples_follow_the_density():
    """Check that ratios of another density to this one have mean one on samples."""
    x, (log_q,) = to_numpyro(FLOW).sample_with_intermediates(KEY, (4000,))
    np.testing.assert_allclose(log_q, FLOW.log_prob(x), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(x, to_numpyro(FLOW).sample(KEY, (4000,)), rtol=1e-5)
    mean, scale = x.mean(0), 0.5 * x.std(0)
    other = dist.Normal(mean, scale).to_event(1).log_prob(x)
    ratios = np.exp(other - to_numpyro(FLOW).log_prob(x))
    assert abs(ratios.mean() - 1) < 5 * ratios.std() / np.sqrt(len(x)) < 0.3


def test_weights_are_leaves_and_do_not_recompile():
    count = []

    @jax.jit
    def score(d, x):
        count.append(1)
        return d.log_prob(x)

    for flow in (FLOW, randomize(FLOW, seed=5)):
        np.testing.assert_allclose(score(to_numpyro(flow), X), flow.log_prob(X), rtol=1e-6)
    assert len(count) == 1
    assert len(jax.tree.leaves(to_numpyro(FLOW))) == len(jax.tree.leaves(FLOW))


def test_samples_have_derivatives_unless_a_component_is_drawn():
    assert to_numpyro(FLOW).has_rsample
    mixture = afflow.distributions.Mixture([afflow.Normal(2), afflow.Normal(2)])
    assert not to_numpyro(afflow.Flow(mixture, afflow.Reverse(2))).has_rsample


def box():
    return afflow.bijectors.Interval(jnp.zeros(2), jnp.array([1.0, 3.0]))


SUPPORTS = {
    "real": (afflow.Reverse(2), constraints.real_vector),
    "positive": (afflow.bijectors.Positive(2), constraints.independent(constraints.positive, 1)),
    "ordered": (afflow.bijectors.Ordered(2), constraints.ordered_vector),
    "matrix": (afflow.bijectors.Exp((2, 3)), constraints.independent(constraints.positive, 2)),
    "inverse": (afflow.Inverse(afflow.bijectors.Exp(2)), constraints.real_vector),
}


@pytest.mark.parametrize(("bijector", "support"), SUPPORTS.values(), ids=SUPPORTS)
def test_supports(bijector, support):
    assert to_transform(bijector).codomain == support
    if not isinstance(bijector, afflow.Inverse):
        flow = afflow.Flow(afflow.Normal(bijector.event_shape), afflow.Chain([bijector]))
        assert to_numpyro(flow).support == support
        assert to_numpyro(flow).support(to_numpyro(flow).sample(KEY, (9,))).all()


def test_support_of_a_box_has_its_ends():
    support = to_numpyro(afflow.Flow(afflow.Normal(2), box())).support
    inside = support(jnp.array([[0.5, 2.0], [2.0, 2.0], [0.5, -1.0]]))
    assert inside.tolist() == [True, False, False]
    assert to_transform(afflow.Inverse(box())).domain(jnp.array([0.5, 2.0]))


def test_unknown_supports_are_asked_for():
    positive = afflow.bijectors.Positive(2)
    shuffled = afflow.Flow(afflow.Normal(2), afflow.Chain([positive, afflow.Reverse(2)]))
    bounded = afflow.Flow(afflow.Uniform(2), afflow.Reverse(2))
    stick = afflow.Flow(afflow.Normal(2), afflow.bijectors.Simplex(2))
    for flow in (shuffled, bounded, stick):
        with pytest.raises(ValueError, match="Expected support="):
            to_numpyro(flow)
        given = constraints.independent(constraints.unit_interval, 1)
        assert to_numpyro(flow, support=given).support is given


def test_a_prior_on_a_box_is_moved_to_the_real_space():
    flow = afflow.Flow(afflow.Normal(2), box())
    potential = potential_energy(lambda: numpyro.sample("x", to_numpyro(flow)), (), {}, {"x": X[0]})
    x = dist.biject_to(to_numpyro(flow).support)(X[0])
    slope = jax.jacfwd(dist.biject_to(to_numpyro(flow).support))(X[0])
    expected = flow.log_prob(x) + jnp.linalg.slogdet(slope)[1]
    np.testing.assert_allclose(-potential, expected, rtol=1e-6)


def test_wrong_inputs_are_refused():
    with pytest.raises(ValueError, match=r"Expected context.shape \(..., 3\), got no context"):
        to_numpyro(CONDITIONAL)
    with pytest.raises(ValueError, match="Expected no context"):
        to_numpyro(FLOW, H)
    with pytest.raises(ValueError, match="Flow"):
        to_numpyro(afflow.Normal(2))
    with pytest.raises(ValueError, match="Expected a key"):
        to_numpyro(FLOW).sample(None)
    with pytest.raises(ValueError, match=r"Expected x.shape \(..., 2\)"):
        to_numpyro(FLOW).log_prob(jnp.zeros(3))


TRANSFORMS = {
    "maf": (FLOW.bijector, None),
    "context": (CONDITIONAL.bijector, H),
    "box": (box(), None),
    "inverse": (afflow.Inverse(FLOW.bijector), None),
}


@pytest.mark.parametrize(("bijector", "context"), TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_against_differentiation(bijector, context):
    t = to_transform(bijector, context)
    y = t(X)
    np.testing.assert_allclose(t.inv(y), X, rtol=1e-4, atol=1e-5)
    contexts = jnp.zeros((4, 1)) if context is None else context
    slope = jax.vmap(jax.jacfwd(lambda x, h: bijector.forward(x, h)))(X, contexts)
    expected = jnp.linalg.slogdet(slope)[1]
    np.testing.assert_allclose(t.log_abs_det_jacobian(X, y), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(t.inv.log_abs_det_jacobian(y, X), -expected, rtol=1e-4, atol=1e-5)
    assert t.domain.event_dim == t.codomain.event_dim == 1
    assert t.forward_shape((7, 2)) == (7, 2)


def test_a_transform_makes_the_flow():
    base = dist.Normal(jnp.zeros(2), 1.0).to_event(1)
    d = dist.TransformedDistribution(base, to_transform(FLOW.bijector))
    assert (d.batch_shape, d.event_shape) == ((), (2,))
    np.testing.assert_allclose(d.log_prob(X), FLOW.log_prob(X), rtol=1e-4)
    x, between = d.sample_with_intermediates(KEY, (5,))
    np.testing.assert_allclose(d.log_prob(x, between), FLOW.log_prob(x), rtol=1e-4)
    batched = dist.TransformedDistribution(base.expand((4,)), to_transform(CONDITIONAL.bijector, H))
    np.testing.assert_allclose(batched.log_prob(X), CONDITIONAL.log_prob(X, H), rtol=1e-4)


def test_transforms_are_pytrees():
    count = []

    @jax.jit
    def run(t, x):
        count.append(1)
        return t(x)

    for bijector in (FLOW.bijector, randomize(FLOW.bijector, seed=5)):
        expected = jax.vmap(bijector.forward)(X)
        np.testing.assert_allclose(run(to_transform(bijector), X), expected, rtol=1e-5)
    assert len(count) == 1


BASES = {
    "batch": (dist.Normal(jnp.arange(2.0), 2.0), None, (2,)),
    "event": (dist.MultivariateNormal(MEAN, COV), None, (2,)),
    "expanded": (dist.StudentT(3.0), (3, 2), (3, 2)),
    "rows": (dist.MultivariateNormal(MEAN, COV), (3, 2), (3, 2)),
    "transformed": (dist.LogNormal(jnp.zeros(2), 1.0), None, (2,)),
}


@pytest.mark.parametrize(("source", "given", "shape"), BASES.values(), ids=BASES)
def test_bases_of_numpyro(source, given, shape):
    base = from_numpyro(source, given)
    assert base.event_shape == shape
    x = jnp.abs(jax.random.normal(KEY, shape))
    np.testing.assert_allclose(base.log_prob(x), source.log_prob(x).sum(), rtol=1e-12)
    assert base.log_prob(x.astype(jnp.float32)).dtype == jnp.float32
    assert not jax.tree.leaves(nnx.state(base, nnx.Param))
    flow = afflow.Flow(base, afflow.bijectors.Positive(shape))
    drawn, log_prob = flow.sample_and_log_prob(KEY, 3)
    assert drawn.shape == (3, *shape)
    np.testing.assert_allclose(log_prob, flow.log_prob(drawn), rtol=1e-4)


def test_base_of_numpyro_is_the_normal_of_a_flow():
    flow = afflow.Flow(from_numpyro(dist.Normal(0.0, 1.0), 2), FLOW.bijector)
    np.testing.assert_allclose(flow.log_prob(X), FLOW.log_prob(X), rtol=1e-6)
    np.testing.assert_allclose(to_numpyro(flow).log_prob(X), FLOW.log_prob(X), rtol=1e-6)
    slope = jax.grad(lambda flow: flow.log_prob(X).sum())(flow)
    assert all(not a.any() for a in jax.tree.leaves(nnx.state(slope.base)))


def test_equal_sources_compile_once():
    count = []

    @jax.jit
    def score(base, x):
        count.append(1)
        return base.log_prob(x)

    for loc in (0.0, 2.0):
        base = from_numpyro(dist.Normal(jnp.full(2, loc), 1.0))
        assert hash(base.held.structure) == hash(
            from_numpyro(dist.Normal(X[0], X[1])).held.structure
        )
        score(base, X[0])
    assert len(count) == 1


MAPS = {
    "elementwise": dist.transforms.AffineTransform(1.0, jnp.array([2.0, -3.0])),
    "exp": dist.transforms.ExpTransform(),
    "vector": dist.transforms.LowerCholeskyAffine(MEAN, jnp.linalg.cholesky(COV)),
    "compose": dist.transforms.ComposeTransform(
        [
            dist.transforms.LowerCholeskyAffine(MEAN, jnp.linalg.cholesky(COV)),
            dist.transforms.ExpTransform(),
        ]
    ),
    "there and back": None,
}


@pytest.mark.parametrize("name", MAPS)
def test_transforms_of_numpyro(name):
    bijector = from_numpyro(MAPS[name] or to_transform(FLOW.bijector), 2)
    afflow.check_bijector(bijector, key=KEY)
    assert not jax.tree.leaves(nnx.state(bijector, nnx.Param))


def test_transforms_sum_over_rows():
    shift = dist.transforms.LowerCholeskyAffine(MEAN, jnp.linalg.cholesky(COV))
    _, log_det = from_numpyro(shift, (3, 2)).forward_and_log_det(jnp.ones((3, 2)))
    np.testing.assert_allclose(log_det, 1.5 * jnp.linalg.slogdet(COV)[1], rtol=1e-6)


def test_unfit_sources_are_refused():
    exp, simplex = dist.transforms.ExpTransform(), dist.transforms.StickBreakingTransform()
    for source, shape, message in [
        (dist.Poisson(jnp.ones(2)), None, "density over all coordinates"),
        (dist.Dirichlet(jnp.ones(3)), None, "density over all coordinates"),
        (dist.Normal(jnp.zeros(2), 1.0), 3, r"ends in \(2,\), got \(3,\)"),
        (dist.MultivariateNormal(MEAN, COV), 3, r"ends in \(2,\), got \(3,\)"),
        (exp, None, "Expected event_shape for a transform"),
        (simplex, 3, "keeps events of shape"),
        (FLOW, None, "Expected a distribution or a transform of NumPyro, got Flow"),
    ]:
        with pytest.raises(ValueError, match=message):
            from_numpyro(source, shape)


def test_nuts_with_a_flow_as_the_prior():
    flow = randomize(gaussian(DIM, rngs=nnx.Rngs(0)), 0.3)
    mean, cov = moments(flow)

    def model():
        x = numpyro.sample("x", to_numpyro(flow))
        numpyro.sample("y", dist.Normal(x, NOISE).to_event(1), obs=Y)

    gain = cov @ jnp.linalg.inv(cov + NOISE**2 * jnp.eye(DIM))
    assert_means(run_nuts(model)["x"], mean + gain @ (Y - mean))


def test_guide_finds_the_mean_and_the_covariance(fitted):
    guide, params = fitted
    mean, cov = moments(guide.get_flow(params))
    np.testing.assert_allclose(mean, MEAN, atol=0.1)
    np.testing.assert_allclose(cov, COV, atol=0.2)
    x = guide.sample_posterior(KEY, params, sample_shape=(2000,))["x"]
    np.testing.assert_allclose(x.mean(0), MEAN, atol=0.2)
    np.testing.assert_allclose(jnp.cov(x.T), COV, atol=0.4)
    exact = guide.get_flow(params).log_prob(X)
    np.testing.assert_allclose(guide.get_posterior(params).log_prob(X), exact, rtol=1e-5)


def test_neutra(fitted):
    guide, params = fitted
    neutra = NeuTraReparam(guide, params)
    model = neutra.reparam(correlated)
    flow = guide.get_flow(params)
    x = flow.bijector.forward(X[0])
    _, log_det = flow.bijector.forward_and_log_det(X[0])
    found, _ = log_density(seed(model, KEY), (), {}, {"auto_shared_latent": X[0]})
    expected = dist.MultivariateNormal(MEAN, COV).log_prob(x) + log_det
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    z = run_nuts(model, warmup=100, samples=200)["auto_shared_latent"]
    assert_means(neutra.transform_sample(z)["x"], MEAN)


def test_guide_of_constrained_variables():
    """Check the evidence bound of a guide against the density of the moved variables."""

    def model():
        numpyro.sample("a", dist.Exponential(1.0))
        numpyro.sample("b", dist.Normal(0.0, 1.0))

    guide = AutoFlow(model, gaussian)
    tr = trace(seed(guide, KEY)).get_trace()
    params = {"auto_flow": tr["auto_flow"]["value"]}
    latent, moved = tr["_auto_latent"], tr["a"]["value"]
    np.testing.assert_allclose(moved, jnp.exp(latent["value"][0]), rtol=1e-6)
    expected = guide.get_flow(params).log_prob(latent["value"]) - latent["value"][0]
    found, _ = log_density(seed(guide, KEY), (), {}, {"_auto_latent": latent["value"]})
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_guides_refuse_other_flows():
    def start(make_flow):
        trace(seed(AutoFlow(correlated, make_flow), KEY)).get_trace()

    with pytest.raises(ValueError, match=r"event_shape \(2,\) without context, got"):
        start(lambda dim, rngs: afflow.Flow(afflow.Normal(3), afflow.Reverse(3)))
    with pytest.raises(ValueError, match="without context"):
        start(lambda dim, rngs: CONDITIONAL)
    with pytest.raises(ValueError, match="Expected a flow over real vectors"):
        start(lambda dim, rngs: afflow.Flow(afflow.Normal(2), afflow.bijectors.Exp(2)))
    with pytest.raises(ValueError, match="make_flow"):
        AutoFlow(correlated, 3)


def test_neutra_needs_a_base_without_parameters():
    base = afflow.distributions.DiagonalNormal(jnp.zeros(2), jnp.ones(2))
    guide = AutoFlow(correlated, lambda dim, rngs: afflow.Flow(base, afflow.Reverse(2)))
    params = {"auto_flow": trace(seed(guide, KEY)).get_trace()["auto_flow"]["value"]}
    assert guide.get_posterior(params).event_shape == (2,)
    with pytest.raises(NotImplementedError, match="Expected a base without parameters"):
        guide.get_base_dist()
    with pytest.raises(NotImplementedError, match="got LocationScale"):
        guide.get_transform(params)


def test_a_transform_of_unknown_ends_is_refused():
    exp, reverse = afflow.bijectors.Exp(2), afflow.Reverse(2)
    with pytest.raises(ValueError, match="Expected codomain"):
        to_transform(afflow.Chain([exp, reverse]))
    with pytest.raises(ValueError, match="Expected domain"):
        to_transform(afflow.Inverse(afflow.Chain([exp, reverse])))
    positive = constraints.independent(constraints.positive, 1)
    given = to_transform(
        afflow.Chain([exp, reverse]), domain=constraints.real_vector, codomain=positive
    )
    assert given.codomain is positive
    power = afflow.Chain([afflow.Chain([reverse, exp]), afflow.bijectors.Power(2, 2.0)])
    assert to_transform(power).domain is constraints.real_vector
    box = afflow.bijectors.Interval(jnp.zeros(2), jnp.ones(2))
    moved = afflow.Chain([afflow.Inverse(box), reverse, exp])
    assert to_transform(moved).codomain.base_constraint is constraints.positive


def test_a_part_that_hides_a_domain_is_refused():
    parts = [afflow.sbi.lognormal([0.0], [1.0]), afflow.sbi.box([-1.0], [1.0])]
    blocks = afflow.sbi.independent(parts).bijector
    for transform in (blocks, afflow.Chain([afflow.Reverse(2), blocks])):
        with pytest.raises(ValueError, match="Expected (domain|codomain)"):
            to_transform(transform)


def test_a_base_that_is_not_the_whole_space_is_known():
    exponential = from_numpyro(dist.Exponential(1.0), 2)
    scale = afflow.Standardize(jnp.zeros(2), jnp.array([1.0, 2.0]))
    flow = afflow.Flow(exponential, scale)
    uniform = afflow.distributions.Product([afflow.Uniform(1), afflow.Normal(1)])
    nested = afflow.Flow(afflow.distributions.Product([uniform]), scale)
    for one in (flow, nested):
        with pytest.raises(ValueError, match="Expected support"):
            to_numpyro(one)
    x = jnp.array([[1.0, -1.0], [1.0, 2.0], [jnp.nan, 1.0]])
    np.testing.assert_allclose(flow.log_prob(x), [-np.inf, -2 - np.log(2), np.nan], rtol=1e-6)
    gradient = jax.grad(lambda x: flow.log_prob(x))(x[0])
    assert np.isfinite(gradient).all()
