"""`fit_to_density` finds the target, is reproducible, and raises clear errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.tree_util import Partial

import afflow

KEY = jax.random.key(0)
COVARIANCE = jnp.array([[1.0, 0.8], [0.8, 2.0]])
OPTIONS = {"key": KEY, "num_samples": 32, "learning_rate": 0.05, "max_epochs": 4, "progress": False}


def target(x):
    """Return the log-density of a correlated normal with mean (1, 1), plus 2."""
    d = x - 1
    log_norm = jnp.log(2 * jnp.pi) + 0.5 * jnp.linalg.slogdet(COVARIANCE)[1]
    return 2 - 0.5 * d @ jnp.linalg.inv(COVARIANCE) @ d - log_norm


def small(factory=afflow.iaf, context_dim=0):
    """Return a flow with one masked linear layer, which can equal the target."""
    return factory(2, num_layers=1, hidden=(), context_dim=context_dim, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def fitted():
    """Return a flow fitted to the target, and its history."""
    return afflow.fit_to_density(small(), target, **OPTIONS)


@pytest.mark.parametrize("factory", [afflow.maf, afflow.iaf])
def test_finds_a_gaussian(factory, fitted):
    """Check the exact target. The objective has no noise at the optimum, so the fit is precise."""
    if factory is afflow.maf:
        fitted = afflow.fit_to_density(small(factory), target, **OPTIONS)
    flow, history = fitted
    _, log_w = afflow.importance_weights(flow, target, key=KEY, num_samples=500)
    np.testing.assert_allclose(log_w, 2, atol=0.02)
    assert abs(history.train[-1] + 2) < 0.01
    assert len(history.train) == 4


def test_same_key_same_bits(fitted):
    again, history = afflow.fit_to_density(small(), target, **OPTIONS)
    jax.tree.map(np.testing.assert_array_equal, again, fitted[0])
    assert history == fitted[1]
    other = OPTIONS | {"key": jax.random.key(1)}
    assert afflow.fit_to_density(small(), target, **other)[1].train != history.train


def test_the_start_is_not_changed():
    flow = small()
    before = jax.tree.map(np.array, flow)
    afflow.fit_to_density(flow, target, **OPTIONS)
    jax.tree.map(np.testing.assert_array_equal, before, flow)


OBJECTIVES = {
    "reverse_kl": afflow.inference.reverse_kl,
    "bound": partial(afflow.inference.doubly_reparameterized, group=4),
    "forward_kl": afflow.inference.forward_kl,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives(name):
    options = OPTIONS | {"objective": OBJECTIVES[name], "num_samples": 256}
    flow, _ = afflow.fit_to_density(small(), target, **options)
    _, log_w = afflow.importance_weights(flow, target, key=KEY, num_samples=2000)
    assert afflow.inference.elbo(log_w).value > 2 - 0.02


def test_amortised():
    """Check that a conditional flow learns a posterior for each context."""

    def log_density(x, context):
        return target(x - jnp.concatenate([context, -context]))

    contexts = jnp.linspace(-2.0, 2.0, 50)[:, None]
    flow, _ = afflow.fit_to_density(
        small(context_dim=1), log_density, context=contexts, **OPTIONS | {"batch_size": 8}
    )
    options = {"key": KEY, "num_samples": 500, "context": jnp.array([[-1.7], [0.3]])}
    _, log_w = afflow.importance_weights(flow, log_density, **options)
    np.testing.assert_allclose(log_w, 2, atol=0.1)


def test_data_in_the_density_compile_once():
    traces = []

    def log_density(mean, x):
        traces.append(mean)
        return target(x - mean)

    def fit(mean):
        flow, _ = afflow.fit_to_density(small(), Partial(log_density, mean), **options)
        return flow.sample(KEY, 500).mean(0), len(traces)

    options = OPTIONS | {"optimizer": optax.adam(0.05)}
    _, first = fit(jnp.zeros(2))
    traces.clear()
    mean, again = fit(jnp.array([-3.0, 1.0]))
    assert again < first
    np.testing.assert_allclose(mean, [-2.0, 2.0], atol=0.4)


def test_one_of_two_modes():
    """Check the documented failure: a lost mode, which the importance weights do not show."""

    def two_modes(x):
        return jnp.logaddexp(target(x - 10), target(x + 10)) - jnp.log(2)

    start = afflow.Chain([small().bijector, afflow.Standardize(jnp.full(2, 8.0), jnp.ones(2))])
    flow, _ = afflow.fit_to_density(afflow.Flow(afflow.Normal(2), start), two_modes, **OPTIONS)
    _, log_w = afflow.importance_weights(flow, two_modes, key=KEY, num_samples=500)
    np.testing.assert_allclose(afflow.inference.elbo(log_w).value, 2 - np.log(2), atol=0.02)
    assert afflow.inference.effective_sample_size(log_w) > 490


def test_diverging_loses_nothing():
    """Check that the error holds the best flow before divergence."""

    def optimizer(num_steps):
        return optax.sgd(lambda t: jnp.where(t > num_steps // 2, 1e30, 0.02))

    options = OPTIONS | {"optimizer": optimizer}
    with pytest.raises(afflow.training.NonFiniteLossError, match="in epoch 2") as caught:
        afflow.fit_to_density(small(), target, **options)
    assert len(caught.value.history.train) == 3
    before, after = (
        -afflow.inference.reverse_kl(f, target, KEY, 500) for f in (small(), caught.value.flow)
    )
    assert after > before + 0.5


def test_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path, fitted):
    def kill(epoch):
        if epoch.number == 1:
            raise InterruptedError

    options = OPTIONS | {"checkpoint": afflow.Checkpoint(tmp_path)}
    with pytest.raises(InterruptedError):
        afflow.fit_to_density(small(), target, callbacks=[kill], **options)
    again, history = afflow.fit_to_density(small(), target, **options)
    jax.tree.map(np.testing.assert_array_equal, again, fitted[0])
    assert history == fitted[1]


ROWS = jnp.zeros((5, 1))
ERRORS = {
    "a log-density by rows": (lambda: fit(lambda x: x), "scalar for one event"),
    "an objective by samples": (
        lambda: fit(target, objective=lambda flow, f, key, n, context: jnp.zeros(n)),
        r"objective to return a scalar, got shape \(32,\)",
    ),
    "no samples": (lambda: fit(target, num_samples=0), "num_samples >= 1, got 0"),
    "no epochs": (lambda: fit(target, max_epochs=0), "max_epochs >= 1"),
    "a missing context": (lambda: fit(target, small(context_dim=1)), "no context"),
    "one context": (
        lambda: fit(target, small(context_dim=1), context=ROWS[0]),
        r"context.shape \(N, 1\), got \(1,\)",
    ),
    "a context too many": (lambda: fit(target, context=ROWS), r"got context.shape \(5, 1\)"),
}


def fit(log_density, flow=None, **options):
    """Fit a small flow to a density with the default options of this file."""
    return afflow.fit_to_density(flow or small(), log_density, **OPTIONS | options)


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
