"""Estimators against the exact posterior of a linear Gaussian model, and supports of posteriors."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import afflow
from afflow import sbi

KEY = jax.random.key(0)
STD = 0.5  # of the noise; the prior has standard deviation 1
SMALL = partial(afflow.made, hidden=())  # exact for a linear Gaussian model
BOX = sbi.box([0.0], [1.0])
FIT = {
    "max_epochs": 20,
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "validation": 0,
    "progress": False,
}


def simulate_normal(key, theta):
    return theta + STD * jax.random.normal(key, theta.shape)


@cache
def make_simulations():
    """Return simulations of two means with a standard normal prior."""
    prior = sbi.gaussian([0.0, 0.0], [1.0, 1.0])
    return prior, sbi.simulate(simulate_normal, prior, 2000, key=KEY, progress=False)


def find_exact(x):
    """Return the mean `(D,)` and the standard deviation of the posterior of rows `(n, D)`."""
    precision = 1 + len(x) / STD**2
    return x.sum(0) / STD**2 / precision, precision**-0.5


def fit(estimate, *args, **options):
    return estimate(*args, key=KEY, **(FIT | options))


@cache
def fit_posterior():
    prior, made = make_simulations()
    return fit(sbi.npe, prior, made.theta, made.x, flow=SMALL)[0]


@cache
def fit_likelihood():
    _, made = make_simulations()
    return fit(sbi.nle, made.theta, made.x, flow=SMALL)[0]


@cache
def fit_ratio():
    _, made = make_simulations()
    return fit(sbi.nre, made.theta, made.x, hidden=(32,), batch_size=100)[0]


def check_samples(theta, x, tolerance):
    """Check samples against the exact posterior of observations `(n, 2)`."""
    mean, std = find_exact(x)
    np.testing.assert_allclose(theta.mean(0), mean, atol=tolerance * std)
    np.testing.assert_allclose(theta.std(0), std, rtol=tolerance)


def test_posterior_of_a_gaussian():
    posterior = fit_posterior()
    assert isinstance(posterior, afflow.Flow)
    x = jnp.array([1.0, -1.0])
    check_samples(posterior.sample(KEY, 4000, x), x[None], 0.1)
    mean, std = find_exact(x[None])
    exact = jax.scipy.stats.norm.logpdf(mean, mean, std).sum()
    np.testing.assert_allclose(posterior.log_prob(mean, x), exact, atol=0.1)


SCORES = {"likelihood": fit_likelihood, "ratio": fit_ratio}


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("n", [1, 4])
def test_posterior_of_several_observations(name, n):
    prior, _ = make_simulations()
    x = jnp.array([[1.0, -1.0], [0.5, -0.6], [0.4, 0.0], [0.9, -0.4]])[:n]
    posterior = sbi.Posterior(prior, SCORES[name](), x if n > 1 else x[0])
    check_samples(posterior.sample(KEY, 2000, num_moves=5), x, 0.2)
    mean, std = find_exact(x)
    steps = jnp.array([[0.0, 0.0], [std, 0.0], [0.0, -std]])
    log_prob = posterior.log_prob(mean[None] + steps)
    np.testing.assert_allclose(log_prob[1:] - log_prob[0], -0.5, atol=0.2)


def test_ratio_is_normalised():
    """Check the log-ratio itself against the exact ratio: NRE-C leaves no factor of the data."""
    theta, x = jnp.array([[0.5, 0.0], [0.0, 0.0]]), jnp.array([[0.5, 0.2], [0.3, -0.5]])
    norm = jax.scipy.stats.norm
    exact = (norm.logpdf(x, theta, STD) - norm.logpdf(x, 0, np.hypot(1, STD))).sum(1)
    np.testing.assert_allclose(fit_ratio().log_ratio(theta, x), exact, atol=0.3)


def test_tempering_starts_from_a_proposal():
    prior, _ = make_simulations()
    x = jnp.array([1.0, -1.0])
    posterior = sbi.Posterior(prior, lambda theta, x: -2 * ((x - theta) ** 2).sum(), x)
    rough = fit_rough()
    theta = posterior.sample(KEY, 4000, proposal=rough, num_moves=5)
    check_samples(theta, x[None], 0.1)


@cache
def fit_rough():
    """Return a posterior after one epoch, which is too wide."""
    prior, made = make_simulations()
    return fit(sbi.npe, prior, made.theta, made.x, flow=SMALL, max_epochs=1)[0]


def test_two_modes_are_found():
    prior = sbi.box([-3.0], [3.0])
    posterior = sbi.Posterior(prior, lambda theta, x: -50 * ((x - theta**2) ** 2).sum(), [1.0])
    theta = posterior.sample(KEY, 2000, num_moves=5)
    assert 0.4 < (theta > 0).mean() < 0.6
    np.testing.assert_allclose(jnp.abs(theta).mean(), 1, atol=0.02)


def test_fewer_samples_than_particles():
    posterior = sbi.Posterior(BOX, lambda theta, x: -((x - theta) ** 2).sum(), [0.2])
    theta = posterior.sample(KEY, 5, num_moves=1)
    assert theta.shape == (5, 1)
    assert ((theta > 0) & (theta < 1)).all()


@cache
def fit_in_a_box():
    made = sbi.simulate(simulate_normal, BOX, 500, key=KEY, progress=False)
    return fit(sbi.npe, BOX, made.theta, made.x, flow=SMALL, max_epochs=10)[0]


@pytest.mark.parametrize("x", [-1.0, 0.4, 2.5])
def test_nothing_leaks_out_of_a_box(x):
    posterior = fit_in_a_box()
    z = jnp.linspace(-6, 6, 4001)  # denser near the ends, where the posterior may be steep
    theta = jax.scipy.stats.norm.cdf(z)
    mass = jnp.exp(posterior.log_prob(theta[:, None], jnp.array([x])))
    np.testing.assert_allclose(jnp.trapezoid(mass, theta), 1, atol=1e-3)
    outside = jnp.array([[-0.1], [1.0], [1.7]])
    assert (posterior.log_prob(outside, jnp.array([x])) == -np.inf).all()
    samples = posterior.sample(KEY, 1000, jnp.array([x]))
    assert ((samples > 0) & (samples < 1)).all()


def test_unnormalised_density_outside_the_support():
    posterior = sbi.Posterior(BOX, lambda theta, x: jnp.log(theta).sum(), [0.0])
    log_prob = posterior.log_prob(jnp.array([[0.5], [-2.0], [jnp.nan]]))
    np.testing.assert_allclose(log_prob[:2], [np.log(0.5), -np.inf], atol=1e-6)
    assert np.isnan(log_prob[2])


def test_embedding_of_series():
    """Check a network over data of two axes, and data with a constant entry."""
    prior, made = make_simulations()
    series = jnp.stack([made.x, jnp.ones_like(made.x)], 2)  # (N, 2, 2)
    rngs = nnx.Rngs(0)

    class Mean(nnx.Module):
        def __init__(self):
            self.linear = nnx.Linear(2, 3, rngs=rngs)

        def __call__(self, x):
            return self.linear(x[..., 0])

    posterior, _ = fit(
        sbi.npe, prior, made.theta, series, flow=SMALL, embedding=Mean(), max_epochs=3
    )
    assert posterior.context_shape == (2, 2)
    assert posterior.sample(KEY, 3, series[:2]).shape == (3, 2, 2)
    assert posterior.log_prob(made.theta, series).mean() > prior.log_prob(made.theta).mean()


def test_failed_rows_are_left_out():
    prior, made = make_simulations()
    x = made.x.at[3, 0].set(jnp.nan)
    with pytest.warns(UserWarning, match="1 of 2000 simulations"):
        one, _ = fit(sbi.npe, prior, made.theta, x, flow=SMALL, max_epochs=1)
    keep = np.arange(2000) != 3
    other, _ = fit(sbi.npe, prior, made.theta[keep], x[keep], flow=SMALL, max_epochs=1)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_ensemble_of_likelihoods():
    prior, _ = make_simulations()
    ensemble = afflow.Ensemble([fit_likelihood(), fit_likelihood()])
    x, theta = jnp.array([1.0, -1.0]), jnp.zeros((3, 2))
    one, two = (sbi.Posterior(prior, model, x) for model in (ensemble, fit_likelihood()))
    np.testing.assert_allclose(one.log_prob(theta), two.log_prob(theta), atol=1e-9)


@pytest.mark.parametrize("model", [fit_in_a_box, fit_ratio])
def test_saved(model, tmp_path):
    afflow.save(model(), tmp_path / "model")
    again = afflow.load(tmp_path / "model")
    for a, b in zip(jax.tree.leaves(model()), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def simulate_narrow(key, theta):
    return theta + 0.05 * jax.random.normal(key, theta.shape)


def test_truncated_rounds_come_closer():
    prior, x = sbi.box([-3.0], [3.0]), jnp.array([1.0])
    options = {"flow": partial(afflow.made, hidden=(8,))} | FIT | {"max_epochs": 100}
    posterior, history, made = sbi.tsnpe(
        prior, simulate_narrow, x, key=KEY, rounds=3, simulations=200, quantile=1e-2, **options
    )
    assert made.theta.shape == made.x.shape == (600, 1)
    spread = [float(made.theta[start : start + 200].std()) for start in (0, 200, 400)]
    assert spread[2] < spread[1] < spread[0]
    assert spread[2] < spread[0] / 2
    theta = posterior.sample(KEY, 2000, x)
    np.testing.assert_allclose(theta.mean(), 1, atol=0.025)
    np.testing.assert_allclose(theta.std(), 0.05, rtol=0.3)
    assert len(history.train) == 100


def test_truncated_draws_have_the_density_of_the_prior():
    """Check both ways to draw: uniform within the region of a normal posterior."""
    prior, x = sbi.box([-3.0], [3.0]), jnp.zeros(1)
    posterior = make_normal(0.5)
    least = posterior.log_prob(jnp.array([1.0]), x)
    by_weight = sbi.truncation.resample_truncated(prior, posterior, x, 1000, key=KEY, least=least)
    by_test = sbi.truncation.draw_truncated(prior, posterior, x, 1000, key=KEY, quantile=0.05)
    for theta, end in ((by_weight, 1.0), (by_test, 0.5 * 1.96)):
        assert jnp.abs(theta).max() < 1.03 * end
        np.testing.assert_allclose(theta.std(), end / 3**0.5, rtol=0.08)


def make_normal(std):
    """Return a normal of one coordinate with an unused context."""
    units = afflow.Standardize(jnp.zeros(1), jnp.full(1, std))
    made = jax.tree.map(jnp.zeros_like, afflow.made(1, hidden=(), context_dim=1, rngs=nnx.Rngs(0)))
    return afflow.Flow(afflow.Normal(1), afflow.Chain([made.bijector, units]))


ERRORS = {
    "unequal lengths": (lambda p, m: fit(sbi.npe, p, m.theta, m.x[1:]), "x_shape"),
    "scalar data": (lambda p, m: fit(sbi.npe, p, m.theta, m.x[:, 0]), "x_shape"),
    "no finite row": (lambda p, m: fit(sbi.npe, p, m.theta, jnp.nan * m.x), "finite rows"),
    "outside": (lambda p, m: fit(sbi.npe, BOX_2, m.theta, m.x), "support of the prior"),
    "no factory": (lambda p, m: fit(sbi.npe, p, m.theta, m.x, flow=3), "function as flow"),
    "no network": (lambda p, m: fit(sbi.npe, p, m.theta, m.x, embedding=3), "as embedding"),
    "a matrix": (
        lambda p, m: fit(sbi.npe, p, m.theta, m.x, embedding=lambda x: x[None]),
        "returns a vector",
    ),
    "images": (lambda p, m: fit(sbi.nle, m.theta, m.x[..., None]), "flatten"),
    "no odds": (lambda p, m: sbi.Contrast(5, 0.0), "odds"),
    "no contrast": (lambda p, m: sbi.Contrast(0), "num >= 1"),
    "no likelihood": (lambda p, m: sbi.Posterior(p, 3, m.x[0]), "as likelihood"),
    "no context": (lambda p, m: sbi.Posterior(p, p, m.x[0]), "without a context"),
    "NaN": (lambda p, m: sbi.Posterior(p, min, [jnp.nan]), "finite observations"),
    "another x": (lambda p, m: sbi.Posterior(p, fit_likelihood(), [1.0]), r"\(..., 2\)"),
    "axes": (lambda p, m: sbi.Posterior(p, fit_likelihood(), m.x[None]), "n"),
    "no samples": (lambda p, m: sbi.Posterior(p, min, [1.0]).sample(KEY, 0), "n >= 1"),
    "all effective": (lambda p, m: sbi.Posterior(p, min, [1.0]).sample(KEY, 5, ess=1), "ess"),
    "a proposal of one": (
        lambda p, m: sbi.Posterior(p, fit_likelihood(), m.x[:2]).sample(
            KEY, 5, proposal=fit_posterior()
        ),
        "one observation",
    ),
    "no rounds": (
        lambda p, m: sbi.tsnpe(p, simulate_normal, m.x[0], key=KEY, rounds=0),
        "rounds >= 1",
    ),
    "a large quantile": (
        lambda p, m: sbi.tsnpe(p, simulate_normal, m.x[0], key=KEY, quantile=1.0),
        "quantile",
    ),
}
BOX_2 = sbi.box([0.0, 0.0], [1.0, 1.0])


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_arguments(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call(*make_simulations())


def test_each_round_has_its_own_checkpoints(tmp_path):
    options = {"rounds": 2, "simulations": 50, "flow": SMALL, "max_epochs": 1, "progress": False}
    options |= {"checkpoint": afflow.Checkpoint(tmp_path), "key": KEY}
    simulator, x = simulate_normal, jnp.array([0.3])
    posterior, history, _ = sbi.tsnpe(BOX, simulator, x, **options)
    again, same, _ = sbi.tsnpe(BOX, simulator, x, **options)  # finished: resumed at once
    assert history == same
    np.testing.assert_array_equal(posterior.log_prob([[0.5]], x), again.log_prob([[0.5]], x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round_0", "round_1"]


def test_an_ensemble_of_ratios_is_their_mean():
    prior = sbi.gaussian([0.0, 0.0], [1.0, 1.0])
    theta, x = jax.random.normal(KEY, (2, 40, 2))
    options = {"max_epochs": 1, "progress": False}
    ratios = [sbi.nre(theta, x, key=jax.random.key(i), **options)[0] for i in range(2)]
    observed = jnp.array([2.0, -1.0])
    posterior = sbi.Posterior(prior, afflow.Ensemble(ratios), observed)
    means = jax.nn.logsumexp(jnp.stack([r.log_ratio(theta, observed) for r in ratios]), 0)
    expected = prior.log_prob(theta) + means - jnp.log(2)
    np.testing.assert_allclose(posterior.log_prob(theta), expected, rtol=1e-6, atol=1e-6)


def test_no_row_is_among_its_others():
    """Check the loss of few rows against many, whose others are the same rows."""
    ratio, _ = sbi.nre(*jax.random.normal(KEY, (2, 40, 1)), key=KEY, max_epochs=1, progress=False)
    theta, x = jax.random.normal(jax.random.key(1), (2, 4, 1))
    found = sbi.Contrast(num=20)(ratio, KEY, theta, x)
    np.testing.assert_allclose(found, sbi.Contrast(num=3)(ratio, KEY, theta, x), rtol=1e-6)
    with pytest.raises(ValueError, match="several rows"):
        sbi.Contrast()(ratio, KEY, theta[:1], x[:1])


def test_a_ratio_refuses_networks_with_a_training_mode():
    theta, x = jax.random.normal(KEY, (2, 40, 2))
    rngs = nnx.Rngs(0)
    network = nnx.Sequential(nnx.Linear(2, 3, rngs=rngs), nnx.Dropout(0.5, rngs=rngs))
    with pytest.raises(ValueError, match="without BatchNorm and Dropout"):
        sbi.nre(theta, x, key=KEY, embedding=network)
