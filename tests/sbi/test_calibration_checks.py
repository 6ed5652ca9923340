"""Ranks, coverage, TARP and predictive checks, on a posterior that is known.

The seeds were chosen before the first run. A test of the exact posterior has a false alarm with a
probability of 1e-3 over seeds: it asks for a p-value above 1e-3, or for a share within a band of
level 0.999.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from flax import nnx
from linear_gaussian import COVARIANCE, MATRIX, Posterior, Prior, draw_pairs, simulate
from registry import randomize

import afflow
from afflow import sbi

OPTIONS = {"key": jax.random.key(1), "num_samples": 99}
PAIRS = draw_pairs(500, seed=0)
COUNTS = {
    "ranks": lambda *args, **options: sbi.compute_ranks(*args, **OPTIONS, **options),
    "coverage": lambda *args, **options: sbi.estimate_coverage(*args, **OPTIONS, **options).ranks,
    "tarp": lambda *args, **options: sbi.estimate_tarp_coverage(*args, **OPTIONS, **options).ranks,
}
NARROW, WIDE, SHIFTED = Posterior(scale=0.6), Posterior(scale=1.7), Posterior(shift=0.5)


@cache
def count(kind, posterior):
    return COUNTS[kind](posterior, *PAIRS)


def find_p_value(kind, posterior):
    return sbi.assess_uniformity(count(kind, posterior)).p_value


@pytest.mark.parametrize("kind", COUNTS)
def test_exact_posterior_has_uniform_ranks(kind):
    assert find_p_value(kind, Posterior()) > 1e-3


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.parametrize("wrong", [NARROW, WIDE, SHIFTED], ids=str)
def test_wrong_posterior_is_detected(kind, wrong):
    assert find_p_value(kind, wrong) < 1e-6


@pytest.mark.parametrize("kind", COUNTS)
def test_prior_is_not_detected(kind):
    """Check the statement of the docstrings: the prior passes unless reference points see x."""
    prior = Prior()
    assert find_p_value(kind, prior) > 1e-3


def test_tarp_with_reference_points_that_depend_on_x_detects_the_prior():
    theta, x = PAIRS
    rough = x @ np.linalg.pinv(MATRIX).T
    ranks = COUNTS["tarp"](Prior(), theta, x, references=rough)
    assert sbi.assess_uniformity(ranks).p_value < 1e-6
    exact = COUNTS["tarp"](Posterior(), theta, x, references=rough)
    assert sbi.assess_uniformity(exact).p_value > 1e-3


def test_units_of_the_parameters_do_not_change_tarp():
    class Scaled(Posterior):
        def sample(self, key, num, x):
            return super().sample(key, num, x) * jnp.array([[[1.0, 1e6]]])

    theta, x = PAIRS
    scaled = COUNTS["tarp"](Scaled(), theta * jnp.array([[1.0, 1e6]]), x).values
    assert abs(scaled - count("tarp", Posterior()).values).max() <= 1  # ties by rounding


def test_ranks_count_the_samples_below():
    """A posterior at known points: the numbers 1 to S, whatever the observation."""

    class Points:
        def sample(self, key, num, x):
            column = jnp.arange(1.0, num + 1)[:, None, None]
            return jnp.broadcast_to(column, (num, len(x), 2))

    theta = jnp.array([[0.5, 3.5], [9.5, 99.5], [2.5, 1.5]])
    ranks = sbi.compute_ranks(Points(), theta, theta, batch_size=2, **OPTIONS)
    assert ranks.values.tolist() == [[0, 3], [9, 99], [2, 1]]
    assert ranks.num_samples == 99


def test_minibatches_have_samples_of_their_own():
    theta = jnp.zeros((40, 2))
    ranks = sbi.compute_ranks(Prior(), theta, theta, batch_size=20, **OPTIONS).values
    assert (ranks[:20] != ranks[20:]).any()


def test_a_flow_is_a_posterior():
    flow = randomize(afflow.maf(2, num_layers=2, hidden=(8,), context_dim=3, rngs=nnx.Rngs(0)), 0.5)
    theta = flow.sample(jax.random.key(5), (), PAIRS[1])
    for kind in COUNTS.values():
        assert sbi.assess_uniformity(kind(flow, theta, PAIRS[1])).p_value > 1e-3
    ranks = COUNTS["ranks"](flow, theta + 0.5, PAIRS[1])
    assert sbi.assess_uniformity(ranks).p_value < 1e-6


def test_density_ranks_equal_the_distribution_of_chi_square():
    """The share of samples of higher density estimates a distribution function in closed form."""
    theta, x = PAIRS
    squares = -2 * Posterior().log_prob(theta, x)
    shares = scipy.stats.chi2.cdf(squares, df=2)
    ranks = count("coverage", Posterior()).values[:, 0]
    spread = np.sqrt(shares * (1 - shares) / 99)
    assert (abs(ranks / 99 - shares) < 5 * spread + 0.02).all()


def test_coverage_of_a_wrong_scale_is_known():
    """Check the coverage of a Gaussian in 2 dimensions: 1 - (1 - level)^(scale^2)."""
    for scale, posterior in {0.6: NARROW, 1.7: WIDE, 1.0: Posterior()}.items():
        found = sbi.estimate_coverage(posterior, *PAIRS, **OPTIONS, level=0.999)
        expected = 1 - (1 - found.levels) ** (scale**2)
        spread = np.sqrt(expected * (1 - expected) / 500)
        assert (abs(found.values - expected) < 4.5 * spread + 0.01).all()
        inside = (found.lower <= found.values) & (found.values <= found.upper)
        assert inside.all() == (scale == 1.0)


def test_levels_are_multiples_that_the_samples_resolve():
    found = sbi.estimate_coverage(Posterior(), *PAIRS, key=jax.random.key(0), num_samples=4)
    assert found.levels == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert (found.values[0], found.values[-1]) == (0, 1)


def test_minibatches_change_no_conclusion():
    whole = COUNTS["coverage"](NARROW, *PAIRS, batch_size=500).values
    parts = COUNTS["coverage"](NARROW, *PAIRS, batch_size=33).values
    assert whole.shape == parts.shape == (500, 1)
    assert np.corrcoef(whole[:, 0], parts[:, 0])[0, 1] > 0.95


@pytest.mark.parametrize("num_samples", [99, 100])
def test_histograms_of_uniform_ranks_are_within_their_bands(num_samples):
    """Test 20,000 histograms at once: a band holds a count with its level, to 5 standard errors."""
    draws = np.random.default_rng(0).integers(0, num_samples + 1, size=(300, 20_000))
    found = sbi.bin_ranks(sbi.Ranks(draws, num_samples), num_bins=10, level=0.9)
    assert (found.counts.sum(0) == 300).all()
    assert found.counts.mean(1) == pytest.approx(found.expected, abs=0.2)
    inside = (found.lower[:, None] <= found.counts) & (found.counts <= found.upper[:, None])
    assert (inside.mean(1) > 0.9 - 0.011).all()
    assert (inside.mean(1) < 0.95).all()


def test_bands_are_central_binomial_intervals():
    """Compare with SciPy, and check that both ends are the last counts with rare tails outside."""
    for num, num_samples in [(300, 99), (57, 100)]:
        ranks = sbi.Ranks(np.zeros((num, 1), int), num_samples)
        found = sbi.bin_ranks(ranks, num_bins=4, level=0.9)
        chances = np.diff(found.edges) / (num_samples + 1)
        expected = scipy.stats.binom.interval(0.9, num, chances)
        assert (found.lower, found.upper) == (
            pytest.approx(expected[0]),
            pytest.approx(expected[1]),
        )
        assert (scipy.stats.binom.sf(found.upper, num, chances) < 0.05).all()
        assert (scipy.stats.binom.sf(found.upper - 1, num, chances) >= 0.05).all()


def test_default_bins_divide_the_ranks():
    for num, num_samples, bins in [(500, 99, 20), (200, 99, 10), (30, 99, 2), (500, 100, 20)]:
        found = sbi.bin_ranks(sbi.Ranks(np.zeros((num, 1), int), num_samples))
        assert len(found.counts) == bins
    assert len(sbi.bin_ranks(sbi.Ranks(np.zeros((500, 1), int), 3)).counts) == 4


def test_p_values_of_uniform_ranks_are_uniform():
    draws = np.random.default_rng(0).integers(0, 100, size=(1000, 2000))
    p_values = sbi.assess_uniformity(sbi.Ranks(draws, 99)).p_values
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
    pairs = [sbi.assess_uniformity(sbi.Ranks(pair, 99)) for pair in np.split(draws[:, :20], 10, 1)]
    assert all(pair.p_value == min(1, 2 * pair.p_values.min()) for pair in pairs)


def test_joint_band_holds_whole_curves_with_its_level():
    """The share of 4000 curves within the band, to 5 standard errors and the band's own error."""
    draws = np.random.default_rng(3).integers(0, 100, size=(200, 4000))
    found = sbi.compare_ecdf(sbi.Ranks(draws, 99), num_points=30, level=0.9)
    inside = (found.lower[:, None] <= found.values) & (found.values <= found.upper[:, None])
    assert 0.9 - 0.03 < inside.all(0).mean() < 0.9 + 0.05
    assert inside.mean() > 0.97  # each point alone


def test_ecdf_of_a_shifted_posterior_leaves_the_band():
    found = sbi.compare_ecdf(count("ranks", SHIFTED))
    assert ((found.values < found.lower[:, None]) | (found.values > found.upper[:, None])).any()
    assert ((found.points > 0) & (found.points < 1)).all()
    assert (found.values[len(found.points) // 2] > 0).all()  # too few samples below: low ranks


def test_predictive_draws_have_the_predictive_distribution():
    """Check mean and covariance of 4000 draws, to 5 standard errors."""
    x = PAIRS[1][0]
    found = sbi.predict(Posterior(), simulate, x, key=jax.random.key(0), num_samples=4000)
    mean = MATRIX @ np.asarray(Posterior()._find_mean(x))
    covariance = MATRIX @ COVARIANCE @ MATRIX.T + np.eye(3) / 4
    deviations = np.sqrt(np.diag(covariance))
    assert (abs(found.draws.mean(0) - mean) < 5 * deviations / np.sqrt(4000)).all()
    assert np.cov(found.draws.T) == pytest.approx(covariance, abs=0.06)
    shares = scipy.stats.norm.cdf((np.asarray(x) - mean) / deviations)
    assert found.share_below == pytest.approx(shares, abs=5 * 0.5 / np.sqrt(4000))
    assert found.theta.shape == (4000, 2)
    assert (found.observation == x).all()


def test_each_posterior_sample_has_its_simulation():
    def simulator(key, theta):
        return jnp.append(theta, jax.random.uniform(key))

    x = PAIRS[1][0]
    found = sbi.predict(Posterior(), simulator, x, key=jax.random.key(0), num_samples=9)
    assert (found.draws[:, :2] == found.theta).all()
    assert len(np.unique(found.draws[:, 2])) == 9


def test_predictive_draws_of_a_python_function():
    def simulator(rng, theta):
        if rng.uniform() < 0.5:
            raise RuntimeError
        return np.append(theta, rng.uniform())

    x, options = PAIRS[1][0], {"key": jax.random.key(0), "num_samples": 50, "workers": 1}
    with pytest.warns(UserWarning, match="RuntimeError"):
        found = sbi.predict(Posterior(), simulator, x, **options)
    assert 10 < len(found.draws) < 40
    assert (found.draws[:, :2] == found.theta).all()


def test_predictive_ties_count_half_and_nan_stays():
    def simulator(key, theta):
        return jnp.array([1.0, 5.0, jnp.nan])

    x = jnp.array([1.0, 9.0, 0.0])
    found = sbi.predict(Posterior(), simulator, x, key=jax.random.key(0), num_samples=10)
    assert found.share_below[:2].tolist() == [0.5, 1.0]
    assert np.isnan(found.share_below[2])


class Broken(Posterior):
    """A posterior with NaN for observations whose first coordinate is above 1."""

    def sample(self, key, num, x):
        return jnp.where(x[None, :, :1] > 1, jnp.nan, super().sample(key, num, x))


class Short(Posterior):
    """A posterior of one coordinate."""

    def sample(self, key, num, x):
        return super().sample(key, num, x)[..., :1]


@pytest.mark.parametrize("kind", COUNTS)
def test_wrong_arguments_of_ranks(kind):
    theta, x = PAIRS
    first = int(np.argmax(x[:, 0] > 1))
    cases = [
        ((Broken(), theta, x), f"without NaN, got NaN for .* row {first}"),
        ((Short(), theta, x), r"shape \(99, 100, 2\) from the posterior, got \(99, 100, 1\)"),
        ((Posterior(), theta[:, 0], x), r"got \(500,\)"),
        ((Posterior(), theta[:9], x), r"got \(9, 2\) and \(500, 3\)"),
        ((Posterior(), theta[:0], x[:0]), r"got \(0, 2\)"),
    ]
    for args, message in cases:
        with pytest.raises(ValueError, match=message):
            COUNTS[kind](*args)
    with pytest.raises(ValueError, match="num_samples >= 1"):
        sbi.compute_ranks(Posterior(), theta, x, key=OPTIONS["key"], num_samples=0)


def test_wrong_arguments_of_summaries():
    ranks = sbi.Ranks(np.zeros((50, 1), int), 9)
    with pytest.raises(ValueError, match="at most 10 ranks, got 11"):
        sbi.bin_ranks(ranks, num_bins=11)
    with pytest.raises(ValueError, match="level > 0 and < 1, got 95"):
        sbi.bin_ranks(ranks, level=95)
    with pytest.raises(ValueError, match="level > 0 and < 1, got 0"):
        sbi.compare_ecdf(ranks, level=0)
    with pytest.raises(ValueError, match="num_bins >= 2"):
        sbi.assess_uniformity(ranks, num_bins=1)
    theta, x = PAIRS
    with pytest.raises(ValueError, match=r"references.shape \(500, 2\), got \(2,\)"):
        sbi.estimate_tarp_coverage(Posterior(), theta, x, references=np.zeros(2), **OPTIONS)
    with pytest.raises(ValueError, match="that vary, got ranges"):
        sbi.estimate_tarp_coverage(Posterior(), theta * jnp.array([[1.0, 0.0]]), x, **OPTIONS)
    with pytest.raises(ValueError, match=r"shape \(3,\), got \(2,\)"):
        sbi.predict(Posterior(), lambda key, theta: theta, x[0], **OPTIONS)
