"""Importance weights and their diagnostics, against known values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow
from afflow.inference.pareto import fit_generalized_pareto

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def gaussian(mu, sigma):
    """Return the log-density of a normal with independent coordinates."""
    return lambda x: jnp.sum(-0.5 * ((x - mu) / sigma) ** 2 - jnp.log(sigma * jnp.sqrt(2 * jnp.pi)))


def weights(log_density, num_samples=4000, context=None, context_dim=0):
    """Return a flow, samples, and log-weights for a target density."""
    flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
    if context_dim:
        flow = randomize(afflow.iaf(2, num_layers=1, context_dim=context_dim, rngs=nnx.Rngs(0)))
    options = {"key": KEY, "num_samples": num_samples, "context": context}
    return flow, *afflow.importance_weights(flow, log_density, **options)


def test_weights_are_ratios():
    flow, x, log_w = weights(gaussian(1.0, 2.0), 10)
    np.testing.assert_allclose(log_w, jax.vmap(gaussian(1.0, 2.0))(x) - flow.log_prob(x))


def test_weights_with_contexts():
    context = jnp.asarray(RNG.normal(size=(3, 2)))

    def log_density(x, context):
        return gaussian(context, 0.5)(x)

    flow, x, log_w = weights(log_density, 7, context, 2)
    assert x.shape == (7, 3, 2)
    expected = [[log_density(x[i, j], context[j]) for j in range(3)] for i in range(7)]
    np.testing.assert_allclose(log_w, np.array(expected) - flow.log_prob(x, context))
    _, x, one = weights(log_density, 7, context[1], 2)
    assert x.shape == (7, 2)
    assert one.shape == (7,)


def test_elbo_of_a_gaussian():
    """Check the ELBO of a known KL divergence and a known normaliser."""
    mu, sigma = jnp.array([0.5, -1.0]), jnp.array([1.5, 0.8])
    _, _, log_w = weights(lambda x: gaussian(mu, sigma)(x) + 3, 20_000)
    kl = jnp.sum(jnp.log(sigma) + (1 + mu**2) / (2 * sigma**2) - 0.5)
    value, error = afflow.inference.elbo(log_w)
    assert 0.005 < error < 0.02
    assert abs(value - (3 - kl)) < 4 * error


def test_elbo_is_exact_where_the_flow_is_the_target():
    _, _, log_w = weights(lambda x: gaussian(0.0, 1.0)(x) + 3)
    np.testing.assert_allclose(afflow.inference.elbo(log_w), (3, 0), atol=1e-12)
    np.testing.assert_allclose(afflow.inference.log_evidence(log_w), (3, 0), atol=1e-7)


def test_standard_errors_are_those_of_repeated_runs():
    log_w = jnp.asarray(RNG.normal(size=(1000, 500)))
    for estimate in (afflow.inference.elbo(log_w), afflow.inference.log_evidence(log_w)):
        ratio = estimate.standard_error.mean() / estimate.value.std()
        assert 0.9 < ratio < 1.1
    np.testing.assert_allclose(afflow.inference.log_evidence(log_w).value.mean(), 0.5, atol=0.01)


def test_effective_sample_size():
    ess = afflow.inference.effective_sample_size
    np.testing.assert_allclose(ess(jnp.full(64, -800.0)), 64)
    np.testing.assert_allclose(ess(jnp.array([0.0, -jnp.inf, -jnp.inf])), 1)
    two = jnp.log(jnp.array([[1.0, 2.0], [3.0, 2.0]]))
    np.testing.assert_allclose(ess(two), [16 / 10, 2])


def generalized_pareto(k, size, runs=1):
    """Return samples `(size, runs)` of scale 1, by inversion of the CDF."""
    u = jnp.asarray(RNG.uniform(size=(size, runs)))
    return jnp.expm1(-k * jnp.log1p(-u)) / k


@pytest.mark.parametrize("k", [0.3, 0.7, 1.2])
def test_pareto_k_of_generalized_pareto_weights(k):
    """Check estimates of k: the mean with the bias of the prior, and the largest error."""
    estimates = afflow.inference.pareto_k(jnp.log(generalized_pareto(k, 5_000, 40)))
    n = 3 * 5_000**0.5
    shrunk = (n * k + 10 * 0.5) / (n + 10)
    error = (1 + k) / n**0.5
    assert abs(estimates.mean() - shrunk) < 4 * error / 40**0.5 + 0.02
    assert jnp.abs(estimates - k).max() < 5 * error


def test_pareto_fit_recovers_the_scale():
    x = jnp.sort(5.0 * generalized_pareto(0.4, 4000)[:, 0])
    k, sigma = fit_generalized_pareto(x)
    assert abs(k - 0.4) < 0.1
    assert abs(sigma - 5) < 0.5


@pytest.mark.parametrize(("s", "k"), [(0.5, -1.0), (2.0, 0.75)])
def test_pareto_k_of_gaussian_proposals(s, k):
    """Check k for weights of N(0, s) under samples of N(0, 1), with a known tail."""
    _, _, log_w = weights(gaussian(0.0, s), 20_000)
    n = 3 * 1000**0.5
    estimate = afflow.inference.pareto_k(log_w.reshape(1000, 20)).mean()
    assert abs(estimate - (n * k + 10 * 0.5) / (n + 10)) < 0.15


def test_light_tails():
    assert afflow.inference.pareto_k(jnp.asarray(0.05 * RNG.normal(size=10_000))) < 0.3


def test_equal_weights_have_no_tail():
    smoothed, k = afflow.inference.pareto_smoothed(jnp.full(100, 2.0))
    assert k == -jnp.inf
    np.testing.assert_array_equal(smoothed, 2.0)


def test_ties_in_the_tail():
    log_w = jnp.zeros(400).at[jnp.arange(7)].set(jnp.arange(7.0))
    assert jnp.isfinite(afflow.inference.pareto_k(log_w))


def test_smoothing_keeps_the_order_and_the_rest():
    log_w = jnp.asarray(2.0 * RNG.normal(size=1000))
    smoothed, k = afflow.inference.pareto_smoothed(log_w)
    order = jnp.argsort(log_w)
    size = int(np.ceil(3 * 1000**0.5))
    np.testing.assert_array_equal(smoothed[order[:-size]], log_w[order[:-size]])
    assert (jnp.diff(smoothed[order]) >= 0).all()
    assert smoothed.max() <= log_w.max()
    assert k == afflow.inference.pareto_k(log_w)


def test_smoothing_steadies_estimates():
    """Check that smoothing lowers the error of log Z over repeated runs with heavy weights."""
    log_w = jnp.log(generalized_pareto(0.7, 500, 400) + 0.01)
    smoothed, _ = afflow.inference.pareto_smoothed(log_w)
    raw, steady = (afflow.inference.log_evidence(a).value.std() for a in (log_w, smoothed))
    assert steady < 0.8 * raw


def test_samples_of_no_weight():
    log_w = jnp.where(jnp.arange(1000) % 2 == 0, -jnp.inf, jnp.asarray(RNG.normal(size=1000)))
    assert afflow.inference.effective_sample_size(log_w) < 500
    assert jnp.isfinite(afflow.inference.log_evidence(log_w).value)
    assert jnp.isfinite(afflow.inference.pareto_k(log_w))
    assert afflow.inference.elbo(log_w).value == -jnp.inf


def test_nan_stays_nan():
    log_w = jnp.zeros(100).at[3].set(jnp.nan)
    for f in (afflow.inference.effective_sample_size, afflow.inference.pareto_k):
        assert jnp.isnan(f(log_w))
    assert jnp.isnan(afflow.inference.elbo(log_w).value)


def test_float32_stays_float32():
    log_w = jnp.asarray(RNG.normal(size=1000), jnp.float32)
    smoothed, k = afflow.inference.pareto_smoothed(log_w)
    assert smoothed.dtype == k.dtype == jnp.float32
    np.testing.assert_allclose(k, afflow.inference.pareto_k(log_w.astype(jnp.float64)), atol=1e-3)


def test_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"scalar for one event, got shape \(2,\)"):
        weights(lambda x: x, 4)
    with pytest.raises(ValueError, match="at least 25 log-weights, got 24"):
        afflow.inference.pareto_k(jnp.zeros(24))


def test_moments_are_those_of_the_distribution():
    """Check moments within four standard errors, and the standard errors against exact values."""
    scale = np.array([0.5, 30.0])
    units = afflow.Standardize(np.array([3.0, -100.0]), scale)
    flow = afflow.Flow(afflow.distributions.Logistic(2), units)
    found = afflow.inference.moments(flow, key=jax.random.key(0), num_samples=20_000)
    variance = scale**2 * np.pi**2 / 3
    truths = np.array([3.0, -100.0]), variance, 4 + np.log(scale).sum()
    for estimate, truth in zip(found, truths, strict=True):
        errors = (estimate.value - truth) / estimate.standard_error
        assert (np.abs(errors) < 4).all()
    of_mean, of_variance = found.mean.standard_error, found.variance.standard_error
    np.testing.assert_allclose(of_mean, np.sqrt(variance / 20_000), rtol=0.05)
    np.testing.assert_allclose(of_variance, variance * np.sqrt(3.2 / 20_000), rtol=0.2)  # kurtosis


def test_moments_of_each_context():
    made = {"hidden": (4,), "context_dim": 3, "rngs": nnx.Rngs(0)}
    found = afflow.inference.moments(
        afflow.made(2, **made), key=jax.random.key(0), num_samples=50, context=jnp.ones((7, 3))
    )
    assert found.mean.value.shape == found.variance.value.shape == (7, 2)
    assert found.entropy.value.shape == found.entropy.standard_error.shape == (7,)


@pytest.mark.parametrize("use", ["importance_weights", "reverse_kl", "moments"])
def test_tables_with_names_are_refused(use):
    """Check the error for flows whose samples are data frames, which cannot be mapped over."""
    data = {"a": np.arange(20.0), "b": 1.0 + np.arange(20.0)}
    columns = {"b": afflow.Above(0.0)}
    flow = afflow.made(2, hidden=(4,), data=data, columns=columns, rngs=nnx.Rngs(0))
    key = jax.random.key(0)
    calls = {
        "importance_weights": lambda: afflow.importance_weights(
            flow, lambda x: -x.sum(), key=key, num_samples=5
        ),
        "reverse_kl": lambda: afflow.inference.reverse_kl(flow, lambda x: -x.sum(), key, 5),
        "moments": lambda: afflow.inference.moments(flow, key=key, num_samples=5),
    }
    with pytest.raises(ValueError, match="samples that are arrays, got a table with names"):
        calls[use]()
