"""Checks that the tests of all converted flows share."""

import jax
import jax.numpy as jnp
import numpy as np

import afflow


def draw(shape, seed=0, scale=1.5):
    """Return random numbers: most inside the interval of a spline, some outside."""
    return np.random.default_rng(seed).normal(0, scale, shape)


def check_density(ours, theirs, x, context=None):
    """Check the log-densities of a converted flow against those of the library."""
    assert len(np.unique(theirs)) == len(theirs)
    context = None if context is None else jnp.asarray(context)
    found = ours.log_prob(jnp.asarray(x), context)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-6)


def check_samples(ours, theirs, z, context=None):
    """Check the events of given noise against those of the library, and their way back."""
    context = None if context is None else jnp.asarray(context)
    axes = (0, None if context is None else 0)
    found = jax.vmap(ours.bijector.forward, axes)(jnp.asarray(z), context)
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-6)
    back = jax.vmap(ours.bijector.inverse, axes)(found, context)
    np.testing.assert_allclose(back, z, rtol=0, atol=1e-6)


def check_saves(ours, path, x, context=None):
    """Check that a converted flow is the same after a round trip through a file."""
    afflow.save(ours, path)
    loaded = afflow.load(path)
    np.testing.assert_array_equal(loaded.log_prob(x, context), ours.log_prob(x, context))


def check_trains(ours, x):
    """Check that a few epochs of training raise the density of the data."""
    options = {"max_epochs": 3, "batch_size": len(x) // 2, "progress": False}
    trained, _ = afflow.fit(ours, x, key=jax.random.key(0), **options)
    assert trained.log_prob(x).mean() > ours.log_prob(x).mean()
