"""Conditionals are normalised, and their CDF, samples and mode agree with the density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import afflow

KEY = jax.random.key(0)
DISCRETE = {
    "bernoulli": (afflow.conditionals.Bernoulli(), 2),
    "categorical": (afflow.conditionals.Categorical(4), 4),
    "levels": (afflow.conditionals.CategoricalLevels(6), 6),
    "discretized": (afflow.conditionals.DiscretizedLogistics(3, 9), 9),
}
CONTINUOUS = {
    "gaussians": afflow.conditionals.MixtureOf(3),
    "laplaces": afflow.conditionals.MixtureOf(3, afflow.univariates.LaplaceCDF()),
    "logistics": afflow.conditionals.MixtureOf(3, afflow.univariates.LogisticCDF()),
}


def params_of(conditional):
    """Return random parameters for a conditional."""
    return jax.random.normal(jax.random.key(3), (conditional.num_params,))


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete(name):
    conditional, size = DISCRETE[name]
    params, values = params_of(conditional), jnp.arange(size)
    log_prob = jax.jit(jax.vmap(conditional.log_prob, (0, None)))
    log_probs = log_prob(values, params)
    probabilities = np.exp(log_probs)
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-9)
    cdf = jax.jit(jax.vmap(conditional.cdf, (0, None)))
    np.testing.assert_allclose(cdf(values, params), probabilities.cumsum(), rtol=1e-9)
    np.testing.assert_array_equal(cdf(jnp.array([-1.0, size + 1.0]), params), [0, 1])
    assert conditional.mode(params) == probabilities.argmax()
    draw = jax.jit(jax.vmap(conditional.sample, (0, None)))
    drawn = draw(jax.random.split(KEY, 4000), params)
    counts = np.bincount(drawn, minlength=size)
    keep = probabilities * 4000 > 1
    expected = np.append(probabilities[keep], probabilities[~keep].sum()) * 4000
    observed = np.append(counts[keep], counts[~keep].sum())
    assert stats.chisquare(observed[expected > 0], expected[expected > 0]).pvalue > 1e-3
    outside = log_prob(jnp.array([-1, size, 0.5, jnp.nan]), params)
    assert (outside[:-1] == -jnp.inf).all()
    assert np.isnan(outside[-1])
    gradients = jax.jit(jax.vmap(jax.grad(conditional.log_prob, 1), (0, None)))
    gradient = gradients(values, 50 * params)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous(name):
    conditional = CONTINUOUS[name]
    params = params_of(conditional)
    x = jnp.linspace(-400, 400, 400_001)
    log_prob = jax.jit(jax.vmap(conditional.log_prob, (0, None)))
    density = np.exp(log_prob(x, params))
    total = np.cumsum(density) * (x[1] - x[0])
    np.testing.assert_allclose(total[-1], 1, atol=1e-4)
    np.testing.assert_allclose(
        conditional.cdf(jnp.array(0.3), params), total[x <= 0.3][-1], atol=2e-3
    )
    draw = jax.jit(jax.vmap(conditional.sample, (0, None)))
    drawn = draw(jax.random.split(KEY, 2000), params)
    cdf = jax.jit(jax.vmap(conditional.cdf, (0, None)))
    assert stats.kstest(cdf(drawn, params), "uniform").pvalue > 1e-3
    means = conditional._parameters(params)[1]
    best, *others = log_prob(np.stack([conditional.mode(params), *means]), params)
    assert (best >= np.array(others)).all()
    far = jnp.array([-1e6, 0.0, 1e6])
    gradients = jax.jit(jax.vmap(jax.grad(conditional.log_prob, (0, 1)), (0, None)))(far, params)
    assert all(np.isfinite(g).all() for g in gradients)
    assert jnp.isnan(conditional.log_prob(jnp.array(jnp.nan), params))


@pytest.mark.parametrize("size", [2, 65])
def test_the_code_of_a_symbol_has_mean_square_one(size):
    codes = jax.vmap(afflow.conditionals.Categorical(size).encode)(jnp.arange(size))
    np.testing.assert_allclose(codes, np.sqrt(size) * np.eye(size), rtol=1e-6)


def test_the_code_of_a_level_is_its_place_between_the_ends():
    levels = afflow.conditionals.CategoricalLevels(5)
    codes = jax.vmap(levels.encode)(jnp.arange(5))
    np.testing.assert_allclose(codes, [-1, -0.5, 0, 0.5, 1])
    assert levels.features == 1


def test_the_height_of_a_symbol():
    code = afflow.conditionals.Categorical(3, height=0.5).encode(jnp.array(1))
    assert code.tolist() == [0.0, 0.5, 0.0]
    with pytest.raises(ValueError, match="height"):
        afflow.conditionals.Categorical(3, height=0.0)


def test_discretized_logistics_do_not_underflow():
    conditional = afflow.conditionals.DiscretizedLogistics(1)
    params = jnp.array([0.0, 0.0, -6.0], jnp.float32)
    log_probs = jax.vmap(conditional.log_prob, (0, None))(jnp.arange(256), params)
    assert np.isfinite(log_probs).all()
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: afflow.conditionals.Categorical(1),
        lambda: afflow.conditionals.CategoricalLevels(1),
        lambda: afflow.conditionals.MixtureOf(0),
        lambda: afflow.conditionals.DiscretizedLogistics(1, 1),
    ],
)
def test_bad_sizes(make):
    with pytest.raises(ValueError, match="num_"):
        make()


@pytest.mark.parametrize("name", [*DISCRETE, *CONTINUOUS])
def test_infinity_has_no_density_and_finite_gradients(name):
    conditional = CONTINUOUS[name] if name in CONTINUOUS else DISCRETE[name][0]
    params = params_of(conditional)
    for x in (jnp.inf, -jnp.inf):
        value, gradient = jax.value_and_grad(conditional.log_prob, 1)(jnp.array(x), params)
        assert value == -jnp.inf
        assert np.isfinite(gradient).all()
    assert np.isnan(conditional.log_prob(jnp.array(jnp.nan), params))
    assert np.isnan(conditional.cdf(jnp.array(jnp.nan), params))
