"""Bases: densities against SciPy in the centre and the tails, and samples against densities."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.stats as st
from flax import nnx
from registry import autoregressive, cast

import afflow

KEY = jax.random.key(5)
LOC, SCALE = np.array([0.5, -2.0]), np.array([0.01, 30.0])
MATRIX = np.array([[2.0, 0.6], [0.6, 0.5]])


def t(df, **options) -> afflow.distributions.StudentT:
    """Return a `StudentT` of two coordinates."""
    return afflow.distributions.StudentT(2, df, **options)


def laplace_logpdf(x, loc=0.0, scale=1.0):
    """Return the Laplace log-density by `gennorm`. SciPy's Laplace underflows in the tails."""
    return st.gennorm.logpdf(x, 1, loc, scale).sum(-1)


def mixture() -> afflow.distributions.Mixture:
    """Return a mixture of a normal and a Laplace distribution."""
    two = [
        afflow.distributions.DiagonalNormal(LOC, SCALE),
        afflow.distributions.LocationScale(afflow.distributions.Laplace(2), -LOC, SCALE),
    ]
    return afflow.distributions.Mixture(two)


def mixture_logpdf(x):
    """Return the exact log-density of `mixture()`."""
    parts = st.norm.logpdf(x, LOC, SCALE).sum(-1), laplace_logpdf(x, -LOC, SCALE)
    return np.logaddexp(*parts) - np.log(2)


BASES = {
    "laplace": (lambda: afflow.distributions.Laplace(2), laplace_logpdf),
    "logistic": (lambda: afflow.distributions.Logistic(2), lambda x: st.logistic.logpdf(x).sum(-1)),
    "cauchy": (lambda: t(1.0), lambda x: st.cauchy.logpdf(x).sum(-1)),
    "t": (lambda: t(3.5, learn_df=False), lambda x: st.t.logpdf(x, 3.5).sum(-1)),
    "t of few degrees": (lambda: t(0.2), lambda x: st.t.logpdf(x, 0.2).sum(-1)),
    "t of 99 degrees": (lambda: t(99.0), lambda x: st.t.logpdf(x, 99).sum(-1)),
    "t of 101 degrees": (lambda: t(101.0), lambda x: st.t.logpdf(x, 101).sum(-1)),
    "t of 1000 degrees": (lambda: t(1000.0), lambda x: st.t.logpdf(x, 1000).sum(-1)),
    "diagonal": (
        lambda: afflow.distributions.DiagonalNormal(LOC, SCALE),
        lambda x: st.norm.logpdf(x, LOC, SCALE).sum(-1),
    ),
    "located logistic": (
        lambda: afflow.distributions.LocationScale(afflow.distributions.Logistic(2), LOC, SCALE),
        lambda x: st.logistic.logpdf(x, LOC, SCALE).sum(-1),
    ),
    "multivariate": (
        lambda: afflow.distributions.MultivariateNormal(LOC, MATRIX),
        st.multivariate_normal(LOC, MATRIX).logpdf,
    ),
    "mixture": (mixture, mixture_logpdf),
    "von Mises": (
        lambda: afflow.distributions.VonMises(2, 3.0),
        lambda x: st.vonmises.logpdf(x, 3.0).sum(-1),
    ),
    "broad von Mises": (
        lambda: afflow.distributions.VonMises(2, 1e-4, learn_concentration=False),
        lambda x: st.vonmises.logpdf(x, 1e-4).sum(-1),
    ),
    "narrow von Mises": (
        lambda: afflow.distributions.VonMises(2, 1e4),
        lambda x: st.vonmises.logpdf(x, 1e4).sum(-1),
    ),
    "product": (
        lambda: afflow.distributions.Product(
            [afflow.distributions.Laplace(1), afflow.distributions.StudentT(1, 3.5)]
        ),
        lambda x: laplace_logpdf(x[..., :1]) + st.t.logpdf(x[..., 1], 3.5),
    ),
}


@pytest.mark.parametrize("name", BASES)
def test_log_prob_is_that_of_scipy(name):
    make, logpdf = BASES[name]
    base = make()
    for scale in (1e-6, 1.0, 100.0, 1e5):
        x = np.asarray(scale * jax.random.normal(KEY, (20, 2)))
        log_prob = jax.jit(jax.vmap(base.log_prob))(x)
        np.testing.assert_allclose(log_prob, logpdf(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(base.log_prob(jnp.zeros(2)), logpdf(np.zeros(2)), rtol=1e-9)


@pytest.mark.parametrize("name", BASES)
def test_float32(name):
    make, logpdf = BASES[name]
    base = cast(make(), jnp.float32)
    for scale in (1.0, 1e3):
        x = scale * jax.random.normal(KEY, (20, 2), jnp.float32)
        log_prob = jax.vmap(base.log_prob)(x)
        assert log_prob.dtype == jnp.float32
        np.testing.assert_allclose(log_prob, logpdf(np.asarray(x, float)), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_gradients_are_finite_and_nan_stays(name, dtype):
    base = cast(BASES[name][0](), dtype)
    value_and_grad = jax.jit(jax.value_and_grad(type(base).log_prob, argnums=(0, 1)))
    for size in (0.0, 1e-20, 1.0, 1e15):
        log_prob, grads = value_and_grad(base, size * jnp.array([1.0, -2.0], dtype))
        assert np.isfinite(log_prob)
        assert log_prob.dtype == dtype
        for grad in jax.tree.leaves(grads):
            assert np.isfinite(grad).all()
    assert np.isnan(base.log_prob(jnp.array([jnp.nan, 0.0], dtype)))


@pytest.mark.parametrize("name", BASES)
def test_samples_follow_the_density(name):
    base = BASES[name][0]()
    x = np.asarray(jax.jit(jax.vmap(base.sample))(jax.random.split(KEY, 20_000)))
    assert x.shape == (20_000, 2)
    for i, cdf in enumerate(MARGINALS[name]):
        assert st.kstest(x[:, i], cdf).pvalue > 1e-3
    np.testing.assert_allclose(st.spearmanr(x).statistic, CORRELATIONS.get(name, 0), atol=0.03)


def _mixture_cdf(i):
    """Return the exact CDF of coordinate `i` of `mixture()`."""

    def cdf(x):
        normal = st.norm.cdf(x, LOC[i], SCALE[i])
        return (normal + st.laplace.cdf(x, -LOC[i], SCALE[i])) / 2

    return cdf


MARGINALS = {
    "laplace": [st.laplace.cdf] * 2,
    "logistic": [st.logistic.cdf] * 2,
    "cauchy": [st.cauchy.cdf] * 2,
    "t": [st.t(3.5).cdf] * 2,
    "t of few degrees": [st.t(0.2).cdf] * 2,
    "t of 99 degrees": [st.t(99).cdf] * 2,
    "t of 101 degrees": [st.t(101).cdf] * 2,
    "t of 1000 degrees": [st.t(1000).cdf] * 2,
    "diagonal": [st.norm(m, s).cdf for m, s in zip(LOC, SCALE, strict=True)],
    "located logistic": [st.logistic(m, s).cdf for m, s in zip(LOC, SCALE, strict=True)],
    "multivariate": [st.norm(LOC[i], MATRIX[i, i] ** 0.5).cdf for i in range(2)],
    "mixture": [_mixture_cdf(i) for i in range(2)],
    "von Mises": [st.vonmises(3.0).cdf] * 2,
    "broad von Mises": [st.vonmises(1e-4).cdf] * 2,
    "narrow von Mises": [st.vonmises(1e4).cdf] * 2,
    "product": [st.laplace.cdf, st.t(3.5).cdf],
}
# A normal has the rank correlation 6 / pi asin(rho / 2). The correlation in the mixture comes from
# the difference between its components.
CORRELATIONS = {"multivariate": 6 / np.pi * np.arcsin(0.3), "mixture": -0.06}


def test_multivariate_from_data():
    rows = np.asarray(jax.random.normal(KEY, (50, 3))) @ np.diag([1.0, 5.0, 0.1]) + 3
    base = afflow.distributions.MultivariateNormal.from_data(rows)
    factor = np.asarray(base.factor)
    np.testing.assert_allclose(factor @ factor.T, np.cov(rows.T, bias=True), rtol=1e-9)
    score = jax.jit(jax.grad(lambda base: jax.vmap(base.log_prob)(jnp.asarray(rows)).mean()))(base)
    for grad in jax.tree.leaves(score):  # the likelihood is at its maximum
        np.testing.assert_allclose(grad, 0, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_tails_do_not_overflow(dtype):
    x = np.array([1e25, -3e37])
    log_prob = cast(t(1.0), dtype).log_prob(jnp.asarray(x, dtype))
    np.testing.assert_allclose(log_prob, st.cauchy.logpdf(x).sum(), rtol=1e-6)


def test_heavy_tails_are_finite_in_float32_and_follow_their_parameters():
    base = cast(t(0.2), jnp.float32)
    keys = jax.random.split(KEY, 20_000)
    assert np.isfinite(jax.vmap(base.sample)(keys)).all()

    def spread(base):
        return jnp.log(jnp.abs(jax.vmap(base.sample)(keys[:2000]))).std()

    assert jax.grad(spread)(t(1.0)).raw_df[...].sum() < 0  # fewer degrees spread more


def test_fixed_degrees_of_freedom_are_no_parameter():
    assert not jax.tree.leaves(nnx.state(t(3.0, learn_df=False), nnx.Param))
    assert jax.tree.leaves(nnx.state(t(3.0), nnx.Param))


def test_mixture_weights_count():
    mixture = afflow.distributions.Mixture([afflow.Uniform(1, 0, 1), afflow.Uniform(1, 1, 3)])
    mixture.logits[...] = jnp.log(jnp.array([0.25, 0.75]))
    x = jnp.array([[0.5], [2.0], [5.0]])
    np.testing.assert_allclose(jnp.exp(jax.vmap(mixture.log_prob)(x)), [0.25, 0.375, 0])
    samples = jax.vmap(mixture.sample)(jax.random.split(KEY, 4000))
    np.testing.assert_allclose((samples < 1).mean(), 0.25, atol=0.03)
    grads = jax.grad(lambda m: jax.vmap(m.log_prob)(x).max())(mixture)
    assert np.isfinite(grads.logits[...]).all()
    outside = jax.grad(lambda m, x: m.log_prob(x), argnums=(0, 1))(mixture, x[2])
    for grad in jax.tree.leaves(outside):
        assert np.isfinite(grad).all()


def test_classes():
    parts = [
        afflow.distributions.DiagonalNormal(k * jnp.ones(2), jnp.ones(2))
        for k in (-50.0, 0.0, 50.0)
    ]
    flow = afflow.Flow(afflow.distributions.ClassConditional(parts), afflow.Reverse(2))
    x = jnp.array([0.3, -0.4])
    for k, part in enumerate(parts):
        one_hot = jnp.eye(3)[k]
        np.testing.assert_allclose(flow.log_prob(x, one_hot), part.log_prob(x[jnp.array([1, 0])]))
        samples = flow.sample(KEY, 100, one_hot)
        np.testing.assert_allclose(samples.mean(), 50 * (k - 1), atol=0.5)
        grads = jax.grad(flow.log_prob, argnums=(0, 1))(x, one_hot)
        assert np.isfinite(jnp.concatenate(grads)).all()
    half = jnp.array([0.5, 0.5, 0.0])
    np.testing.assert_allclose(flow.log_prob(x, half), flow.log_prob(x, jnp.eye(3)[1]) - np.log(2))
    assert np.isnan(flow.log_prob(x, jnp.array([jnp.nan, 1.0, 0.0])))


def test_mixture_passes_the_context_on():
    inner = afflow.distributions.ClassConditional(
        [afflow.Normal(2), afflow.distributions.Laplace(2)]
    )
    base = afflow.distributions.Mixture([inner, afflow.distributions.Logistic(2)])
    x, one_hot = jnp.ones(2), jnp.array([0.0, 1.0])
    expected = np.logaddexp(st.laplace.logpdf(1) * 2, st.logistic.logpdf(1) * 2) - np.log(2)
    np.testing.assert_allclose(base.log_prob(x, one_hot), expected)
    flow = afflow.Flow(base, autoregressive(2, context_dim=2))
    assert flow.sample(KEY, 3, one_hot).shape == (3, 2)


ERRORS = {
    "no degrees of freedom": (lambda: t(0.0), "df > 0"),
    "a scale of zero": (
        lambda: afflow.distributions.DiagonalNormal(jnp.ones(2), jnp.zeros(2)),
        "positive scale",
    ),
    "a scale of another shape": (
        lambda: afflow.distributions.LocationScale(
            afflow.distributions.Laplace(2), jnp.ones(2), jnp.ones(3)
        ),
        r"\(2,\)",
    ),
    "a covariance of another shape": (
        lambda: afflow.distributions.MultivariateNormal(LOC, jnp.eye(3)),
        "D, D",
    ),
    "a singular covariance": (
        lambda: afflow.distributions.MultivariateNormal(LOC, jnp.ones((2, 2))),
        "dependent columns",
    ),
    "no covariance": (
        lambda: afflow.distributions.MultivariateNormal(LOC, jnp.array([[1.0, 2.0], [0.0, 1.0]])),
        "symmetric",
    ),
    "no components": (lambda: afflow.distributions.Mixture([]), "one event_shape"),
    "components of two shapes": (
        lambda: afflow.distributions.ClassConditional([afflow.Normal(2), afflow.Normal(3)]),
        "one event_shape",
    ),
    "classes that take a context": (
        lambda: afflow.distributions.ClassConditional(
            [afflow.distributions.ClassConditional([afflow.Normal(2)])]
        ),
        "without a context",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected(name):
    make, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", BASES)
def test_batches_are_refused(name):
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        BASES[name][0]().log_prob(jnp.zeros((2, 2)))


def test_batches_of_the_plain_bases_are_refused():
    for base in (
        afflow.Normal(2),
        afflow.Uniform(2),
        afflow.distributions.ClassConditional([afflow.Normal(2)]),
    ):
        with pytest.raises(ValueError, match=r"jax\.vmap"):
            base.log_prob(jnp.zeros((2, 2)), jnp.ones(1))


def test_uniform_has_bounds_of_its_own_for_each_coordinate():
    box = afflow.Uniform(2, [0.0, -1.0], [2.0, 3.0])
    samples = jax.vmap(box.sample)(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(samples.min(0), [0.0, -1.0], atol=0.02)
    np.testing.assert_allclose(samples.max(0), [2.0, 3.0], atol=0.02)
    np.testing.assert_allclose(box.log_prob(samples[0]), -np.log(8.0))
    for outside in ([-0.1, 0.0], [1.0, 3.1]):
        assert box.log_prob(jnp.array(outside)) == -np.inf
    for low, high in (([0.0, 1.0], 1.0), ([0.0], 1.0), (-np.inf, 0.0)):
        with pytest.raises(ValueError, match="low"):
            afflow.Uniform(2, low, high)


@pytest.mark.parametrize("concentration", [1e-4, 1e-2, 3.0, 1e6, 1e12, 3e29])
def test_angles_of_every_concentration(concentration):
    """Check samples in float32 against the distribution function, down to a few float steps."""
    with jax.enable_x64(False):
        base = afflow.distributions.VonMises(1, concentration)
        x = np.asarray(jax.vmap(base.sample)(jax.random.split(KEY, 4000)))[:, 0]
    far = concentration > 1e3
    normal, angles = (
        st.norm(scale=concentration**-0.5),
        st.vonmises(concentration if not far else 1),
    )
    assert st.kstest(x, normal.cdf if far else angles.cdf).pvalue > 1e-3
    assert len(np.unique(x)) > 3500


def test_a_concentration_that_is_nan_draws_nan():
    base = afflow.distributions.VonMises(2)
    base.raw_concentration[...] = jnp.array([jnp.nan, 1.0])
    x = base.sample(KEY)
    assert np.isnan(x[0])
    assert np.isfinite(x[1])


def test_gradients_by_large_parameters():
    """Check derivatives in float32 by a large concentration, and by many degrees of freedom."""
    with jax.enable_x64(False):
        for kappa in (10.0, 250.0, 350.0, 1e4, 1e7):
            base = afflow.distributions.VonMises(1, kappa)
            gradient = jax.grad(lambda base: base.log_prob(jnp.zeros(1)))(base)
            gradient = gradient.raw_concentration[0] / jax.nn.sigmoid(base.raw_concentration[0])
            exact = mpmath.mpf(1) - mpmath.besseli(1, kappa) / mpmath.besseli(0, kappa)
            np.testing.assert_allclose(gradient, float(exact), rtol=1e-3)
        many = afflow.distributions.StudentT(1, 1e10)
        gradient = jax.grad(lambda base: base.log_prob(jnp.ones(1)))(many).raw_df
        assert np.isfinite(gradient[...]).all()


def test_distributions_with_a_location_know_units():
    normal = afflow.distributions.DiagonalNormal(np.full(2, 100.0), np.full(2, 20.0))
    plain, product = afflow.Normal(2), afflow.distributions.Product
    assert normal.has_units
    assert product([normal, normal]).has_units
    assert not product([normal, plain]).has_units
    assert afflow.distributions.ClassConditional([normal, normal]).has_units
    assert not plain.has_units
