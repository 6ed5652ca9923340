"""A flow of noisy events on a grid: its bound by enumeration, its training and its denoising."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize
from scipy import stats
from scipy.special import logsumexp

import afflow
from afflow.models import NoisyFlow

KEY = jax.random.key(0)
GRID = np.array([-1.0, 0.0, 1.0])
EVENTS = np.array(list(itertools.product(GRID, GRID)))


def correlated():
    """Return a flow of two values, that depend on each other."""
    made = randomize(afflow.MADE(2, 2, (5,), rngs=nnx.Rngs(0)), 0.3)
    return afflow.Flow(afflow.Normal(2), afflow.MaskedAutoregressive(made, afflow.Affine()))


def integrate(flow, noise_std):
    """Return log P(x) of all events, by a sum over a fine grid of noisy events."""
    axis = np.linspace(-9, 9, 601)
    y = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    log_p = np.asarray(flow.log_prob(y)) + 2 * np.log(axis[1] - axis[0])
    kernels = -((y[:, :, None] - GRID) ** 2) / (2 * noise_std**2)  # (Y, 2, 3)
    decoder = kernels - logsumexp(kernels, axis=-1, keepdims=True)
    places = np.searchsorted(GRID, EVENTS)  # (9, 2)
    of_events = decoder[:, 0, places[:, 0]] + decoder[:, 1, places[:, 1]]  # (Y, 9)
    return logsumexp(log_p[:, None] + of_events, axis=0)


@pytest.mark.parametrize("std", [0.6, 1.2])
def test_the_bound_is_below_the_log_probability_and_many_draws_come_close(std):
    flow = correlated()
    exact = integrate(flow, std)
    np.testing.assert_allclose(np.exp(exact).sum(), 1, rtol=1e-3)
    copies = np.broadcast_to(EVENTS, (20000, 9, 2))  # each with separate noise
    one = np.asarray(NoisyFlow(flow, std, levels=3).log_prob(copies))
    error = one.std(0) / np.sqrt(len(one))
    gap = exact - one.mean(0)
    assert (gap > 3 * error).all()
    tight = np.asarray(NoisyFlow(flow, std, levels=3, num_draws=64).log_prob(copies[:500]))
    assert (exact - tight.mean(0) < 0.5 * gap).all()
    np.testing.assert_allclose(logsumexp(one, axis=0) - np.log(20000), exact, atol=0.1)


def test_the_bound_is_tight_for_the_flow_of_noisy_events_with_little_noise():
    std, probs = 0.05, np.array([0.2, 0.5, 0.3])
    parts = [afflow.distributions.DiagonalNormal([v], [std]) for v in GRID]
    base = afflow.distributions.Mixture(parts)
    base.logits[...] = jnp.log(probs)
    flow = afflow.Flow(base, afflow.Reverse(1))
    y = np.array([[0.02], [-1.1]])
    expected = [logsumexp(np.log(probs) + stats.norm.logpdf(v, GRID, std)) for v in y[:, 0]]
    np.testing.assert_allclose(flow.log_prob(y), expected, rtol=1e-6)
    found = NoisyFlow(flow, std, levels=3).log_prob(GRID[:, None])
    np.testing.assert_allclose(found, np.log(probs), rtol=1e-6)
    # Denoising moves a noisy value to its value of the grid.
    np.testing.assert_allclose(NoisyFlow(flow, std).denoise(y), np.round(y), atol=1e-6)


def test_denoising_a_normal_shrinks_it():
    flow = afflow.Flow(afflow.Normal(3), afflow.Standardize(np.zeros(3), np.full(3, 2.0)))
    model, y = NoisyFlow(flow, 1.0), jnp.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(model.denoise(y), y * (1 - 1 / 4), rtol=1e-6)
    noisy = model.sample(KEY, 4, denoise=False)
    np.testing.assert_allclose(model.sample(KEY, 4), 0.75 * noisy, rtol=1e-6)


def conditional():
    made = randomize(afflow.MADE(2, 2, (5,), context_dim=3, rngs=nnx.Rngs(0)))
    return afflow.Flow(afflow.Normal(2), afflow.MaskedAutoregressive(made, afflow.Affine()))


def test_training_drops_a_share_of_the_contexts_and_validation_none():
    flow = conditional()
    model = NoisyFlow(flow, 1e-12, drop_context=0.25)
    x, context = np.zeros((2000, 2)), np.tile(np.eye(3)[1], (2000, 1))
    given, null = flow.log_prob(x[0], context[0]), flow.log_prob(x[0], np.zeros(3))
    found = np.asarray(model.training_log_prob(KEY, x, context))
    is_null = np.isclose(found, null)
    assert (is_null | np.isclose(found, given)).all()
    assert not np.isclose(given, null)
    assert 0.2 < is_null.mean() < 0.3
    kept = model.without_noise().training_log_prob(KEY, x, context)
    np.testing.assert_allclose(kept, given)


def test_events_in_chunks_have_the_same_densities_and_samples():
    model, classes = NoisyFlow(conditional(), 0.5, levels=3, num_draws=3), np.eye(3)
    x = np.zeros((3, 3, 2))
    assert len(np.unique(model.log_prob(x, classes))) == 9  # separate noise for each event
    for method, *args in (("log_prob", x), ("denoise", x), ("sample", KEY, 3)):
        run = getattr(model, method)
        np.testing.assert_allclose(run(*args, classes, chunk=2), run(*args, classes), rtol=1e-6)


def test_events_of_another_shape_are_errors():
    for method in ("log_prob", "denoise"):
        with pytest.raises(ValueError, match=r"shape \(\.\.\., 2\), got \(5, 3\)"):
            getattr(NoisyFlow(correlated(), 0.1), method)(np.zeros((5, 3)))


def test_training_adds_noise_of_the_given_size():
    flow = afflow.Flow(afflow.Normal(2), afflow.Standardize(np.zeros(2), np.full(2, 1e3)))
    scale = -2 * (NoisyFlow(flow, 300.0).training_log_prob(KEY, np.zeros((4000, 2))).mean())
    expected = 2 * 300.0**2 / 1e6 + 2 * np.log(2 * np.pi) + 4 * np.log(1e3)
    np.testing.assert_allclose(scale, expected, atol=0.02)


def test_a_noisy_flow_learns_which_class_has_which_values(tmp_path):
    classes = np.random.default_rng(0).integers(0, 3, 600)
    x = np.stack([GRID[classes], GRID[::-1][classes]], 1)
    model = NoisyFlow(afflow.made(2, hidden=(16,), context_dim=3, rngs=nnx.Rngs(0)), 0.3, levels=3)
    contexts = np.eye(3)[classes]
    model, _ = afflow.fit(
        model, x, context=contexts, key=KEY, max_epochs=30, learning_rate=0.03, progress=False
    )
    assert model.log_prob(x, contexts).mean() > -0.5
    afflow.save(model, tmp_path / "model.zip")
    again = afflow.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(
        again.log_prob(x[:5], contexts[:5]), model.log_prob(x[:5], contexts[:5])
    )
    samples = model.sample(KEY, 20, np.eye(3))
    assert samples.shape == (20, 3, 2)
    np.testing.assert_allclose(
        np.asarray(samples).mean(0), np.stack([GRID, GRID[::-1]], 1), atol=0.2
    )


@pytest.mark.parametrize(
    "wrong",
    [{"noise_std": 0.0}, {"drop_context": 1.0}, {"levels": 1}, {"high": -1.0}, {"num_draws": 0}],
)
def test_numbers_out_of_range_are_errors(wrong):
    with pytest.raises(ValueError, match="Expected"):
        NoisyFlow(correlated(), **{"noise_std": 0.1} | wrong)


def test_there_is_no_probability_off_the_grid():
    model = NoisyFlow(correlated(), 0.5, levels=3)
    off = [[0.5, 0.0], [2.0, 0.0], [np.inf, 0.0], [-np.inf, 1.0], [128.0, 200.0]]
    np.testing.assert_array_equal(model.log_prob(off), -np.inf)
    assert np.isnan(model.log_prob([[np.nan, 0.0], [np.nan, 0.5]])).all()
    near = EVENTS + 1e-6
    np.testing.assert_allclose(model.log_prob(near), model.log_prob(EVENTS), atol=1e-4)
    gradient = jax.grad(lambda model: model.log_prob(jnp.array([np.inf, 0.0])))(model)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
