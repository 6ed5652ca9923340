"""Ensembles: each member is trained as it would be alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

X = np.random.default_rng(0).normal(size=(200, 2)) * [0.5, 3.0] + [2.0, -1.0]
KEY = jax.random.key(0)
OPTIONS = {"key": KEY, "max_epochs": 3, "batch_size": 20, "learning_rate": 0.1, "progress": False}


def make(rngs):
    """Return a small flow."""
    return afflow.made(2, hidden=(5,), rngs=rngs)


@pytest.fixture(scope="module")
def ensemble():
    """Return a trained ensemble of three flows."""
    return afflow.fit_ensemble(make, X, num=3, validation=0, **OPTIONS)[0]


def test_members_are_trained_as_if_alone(ensemble):
    start, key = jax.random.split(KEY)
    keys = jax.random.split(start, 3)
    alone, _ = afflow.fit(make(nnx.Rngs(keys[1])), X, validation=0, **(OPTIONS | {"key": key}))
    for left, right in zip(jax.tree.leaves(ensemble[1]), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-9)


def recurrent(rngs):
    """Return a small model with dropout."""
    network = afflow.conditioners.Recurrent(2, 1, (3,), dropout=0.5, rngs=rngs)
    return afflow.AutoregressiveModel(network, afflow.conditionals.Bernoulli())


def masked(rngs):
    """Return a small ensemble of masks with dropout."""
    return afflow.zoo.made_ensemble(2, hidden=(8,), dropout=0.5, rngs=rngs)


@pytest.mark.parametrize("build", [recurrent, masked])
def test_validation_drops_no_units(build):
    x = (X > 0).astype(float)
    models = [randomize(build(nnx.Rngs(seed)), 1.0) for seed in range(2)]
    validated = afflow.Ensemble(models).without_noise()
    keys = jax.random.split(KEY, 2)
    means = [m.without_noise().training_log_prob(k, x) for m, k in zip(models, keys, strict=True)]
    np.testing.assert_allclose(validated.training_log_prob(KEY, x), np.mean(means, 0), rtol=1e-6)
    noisy = np.mean([m.training_log_prob(k, x) for m, k in zip(models, keys, strict=True)], 0)
    assert np.abs(noisy - np.mean(means, 0)).max() > 1e-3


def test_an_order_agnostic_model_validates_without_dropout():
    model = randomize(masked(nnx.Rngs(0)), 1.0).without_noise()
    x = (X > 0).astype(float)
    plain = afflow.zoo.made_ensemble(2, hidden=(8,), rngs=nnx.Rngs(0))
    plain = jax.tree.unflatten(jax.tree.structure(plain), jax.tree.leaves(model))
    np.testing.assert_array_equal(model.training_log_prob(KEY, x), plain.training_log_prob(KEY, x))


def test_the_mixture(ensemble):
    members = [ensemble[i] for i in range(3)]
    densities = [np.exp(member.log_prob(X)) for member in members]
    np.testing.assert_allclose(np.exp(ensemble.log_prob(X)), np.mean(densities, 0))
    assert np.std(densities, 0).max() > 0
    samples = ensemble.sample(KEY, (50, 40))
    assert samples.shape == (50, 40, 2)
    means = [member.sample(KEY, 2000).mean(0) for member in members]
    np.testing.assert_allclose(samples.mean((0, 1)), np.mean(means, 0), atol=0.3)


def test_samples_with_their_log_densities(ensemble):
    x, log_prob = ensemble.sample_and_log_prob(KEY, (5, 4))
    np.testing.assert_array_equal(x, ensemble.sample(KEY, (5, 4)))
    np.testing.assert_allclose(log_prob, ensemble.log_prob(x))


def test_samples_come_from_every_member():
    def point(loc):
        base = afflow.distributions.DiagonalNormal(jnp.full(1, loc), jnp.full(1, 1e-3))
        return afflow.Flow(base, afflow.Reverse(1))

    samples = afflow.Ensemble([point(0.0), point(4.0)]).sample(KEY, 100)
    assert 30 < (np.round(samples) == 4.0).sum() < 70
    assert set(np.round(samples[:, 0]).tolist()) == {0.0, 4.0}


def test_members_must_be_alike():
    with pytest.raises(ValueError, match="differ in their arrays only"):
        afflow.Ensemble([afflow.Normal(1), afflow.Normal(2)])
    with pytest.raises(ValueError, match="num >= 1"):
        afflow.fit_ensemble(make, X, num=0, **OPTIONS)


def test_no_member_is_drawn_with_a_key_of_the_training():
    """Check that the keys of initial weights are none of the keys that order epochs."""
    seeds = []
    afflow.fit_ensemble(
        lambda rngs: make(seeds.append(rngs.params.key[...]) or rngs), X, num=2, **OPTIONS
    )
    taken = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in seeds}
    later = {
        tuple(np.asarray(jax.random.key_data(key)).tolist())
        for key in [*jax.random.split(KEY), *jax.random.split(jax.random.split(KEY)[1])]
    }
    assert not taken & later
