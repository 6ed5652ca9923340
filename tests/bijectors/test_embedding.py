"""Embedding networks: one run per given context, in evaluation and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

KEY = jax.random.key(0)


def flow_of_images(size=400) -> afflow.Flow:
    """Return a flow whose context is an image, embedded by a network with two layers."""
    rngs = nnx.Rngs(0)
    flow = afflow.maf(2, num_layers=1, hidden=(4,), context_dim=3, rngs=rngs)

    class Network(nnx.Module):
        def __init__(self):
            self.first, self.last = nnx.Linear(size, 50, rngs=rngs), nnx.Linear(50, 3, rngs=rngs)

        def __call__(self, image):
            return self.last(jnp.tanh(self.first(image.reshape(-1))))

    embedded = afflow.Embedded(flow.bijector, Network(), (size // 4, 4))
    return randomize(afflow.Flow(flow.base, embedded), 0.1)


def flops(f, *args):
    """Return the number of floating-point operations of the compiled `f(*args)`."""
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


def test_a_network_runs_once_for_every_context():
    flow = flow_of_images()
    image = jax.random.normal(KEY, (100, 4))
    one = flops(lambda h: flow.sample(KEY, 300, h), image)
    for batch in ((1,), (1, 1)):
        found = flops(lambda h: flow.sample(KEY, 300, h), image.reshape(*batch, 100, 4))
        assert found < 1.5 * one
    x = jnp.zeros((300, 1, 2))
    five = jnp.broadcast_to(image, (5, 100, 4))
    assert flops(flow.log_prob, x, five) < 6 * flops(flow.log_prob, x, image)


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 1), (2, 3)])
def test_densities_are_those_of_the_network_inside(batch):
    flow = flow_of_images(8)
    contexts = jax.random.normal(KEY, (*batch, 2, 4))
    x = jax.random.normal(KEY, (5, 2, 3, 2))
    inside = flow.bijector.bijector
    given = jnp.broadcast_to(contexts, (5, 2, 3, 2, 4)).reshape(-1, 2, 4)
    plain = afflow.Flow(flow.base, inside)
    expected = plain.log_prob(x.reshape(-1, 2), jax.vmap(flow.bijector.network)(given))
    found = flow.log_prob(x, contexts)
    assert found.shape == (5, 2, 3)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-12)
    samples, log_prob = flow.sample_and_log_prob(KEY, 4, contexts)
    np.testing.assert_allclose(flow.log_prob(samples, contexts), log_prob, rtol=1e-9)


def test_a_network_inside_a_network():
    flow = flow_of_images(8)
    outer = afflow.Embedded(flow.bijector, lambda h: jnp.tanh(h).reshape(2, 4), (8,))
    twice = afflow.Flow(flow.base, outer)
    h, x = jax.random.normal(KEY, (3, 8)), jax.random.normal(KEY, (3, 2))
    expected = flow.log_prob(x, jnp.tanh(h).reshape(3, 2, 4))
    np.testing.assert_allclose(twice.log_prob(x, h), expected, rtol=1e-12)


def test_a_base_that_reads_the_context_keeps_it():
    classes = afflow.distributions.ClassConditional(
        [afflow.Normal(2), afflow.distributions.Laplace(2)]
    )
    inner = randomize(afflow.maf(2, num_layers=1, hidden=(4,), context_dim=2, rngs=nnx.Rngs(0)))
    flow = afflow.Flow(classes, afflow.Embedded(inner.bijector, jnp.tanh, 2))
    x, h = jnp.ones((4, 2)), jax.nn.one_hot(jnp.array([0, 1, 0, 1]), 2)
    z, log_det = jax.vmap(inner.bijector.inverse_and_log_det)(x, jnp.tanh(h))
    expected = jax.vmap(classes.log_prob)(z, h) + log_det
    np.testing.assert_allclose(flow.log_prob(x, h), expected, rtol=1e-12)


@afflow.saveable
class Normalised(nnx.Module):
    """A network with batch statistics and dropout, for one context or a minibatch."""

    def __init__(self, rngs, rate=0.0):
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.linear = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, h):
        return self.linear(self.drop(self.norm(h)))


def with_network(network):
    """Return a flow with contexts `(3,)` that `network` embeds."""
    made = afflow.made(2, hidden=(4,), context_dim=2, rngs=nnx.Rngs(0))
    return afflow.Flow(made.base, afflow.Embedded(made.bijector, network, 3))


CONTEXTS = np.random.default_rng(0).normal([5.0, -2.0, 0.0], [3.0, 0.1, 1.0], (300, 3))


@pytest.mark.parametrize("batch_size", [30, 300])
def test_batch_statistics_are_trained(batch_size):
    """Check that the statistics of the contexts are learned, and that rows do not interact."""
    x = np.random.default_rng(1).normal(size=(300, 2))
    flow = with_network(Normalised(nnx.Rngs(0)))
    options = {"batch_size": batch_size, "max_epochs": 20, "progress": False, "validation": 0.0}
    trained, _ = afflow.fit(flow, x, context=CONTEXTS, key=KEY, **options)
    norm = trained.bijector.network.norm
    np.testing.assert_allclose(norm.mean[...], CONTEXTS.mean(0), atol=1.0)
    np.testing.assert_allclose(norm.var[...], CONTEXTS.var(0), rtol=0.5)
    one = trained.log_prob(x[:1], CONTEXTS[:1])
    np.testing.assert_allclose(one, trained.log_prob(x, CONTEXTS)[:1], rtol=1e-6)
    np.testing.assert_array_equal(flow.bijector.network.norm.mean[...], 0)  # not changed


def test_dropout_has_new_keys_in_each_step_of_training_only():
    x = np.random.default_rng(1).normal(size=(300, 2))
    options = {"batch_size": 100, "max_epochs": 2, "progress": False, "key": KEY}
    losses = {}
    for rate in (0.0, 0.9):
        flow = with_network(Normalised(nnx.Rngs(0), rate))
        np.testing.assert_array_equal(flow.log_prob(x, CONTEXTS), flow.log_prob(x, CONTEXTS))
        trained, history = afflow.fit(randomize(flow), x, context=CONTEXTS, **options)
        losses[rate] = history.train[0]
        counts = jax.tree.leaves(nnx.state(trained, nnx.RngCount))
        assert max(map(int, counts)) >= 4 * (rate > 0)
    assert losses[0.0] != losses[0.9]


def test_statistics_survive_a_checkpoint(tmp_path):
    """Check that a resumed run equals an uninterrupted run bit for bit."""
    x = np.random.default_rng(1).normal(size=(300, 2))
    options = {"batch_size": 100, "progress": False, "key": KEY, "max_epochs": 4}

    def run(**more):
        flow = with_network(Normalised(nnx.Rngs(0), 0.5))
        return afflow.fit(flow, x, context=CONTEXTS, **options, **more)[0]

    def interrupt(epoch):
        if len(epoch.history.train) == 3:
            raise RuntimeError("the power fails")

    store = {"checkpoint": afflow.Checkpoint(tmp_path / "run")}
    with pytest.raises(RuntimeError, match="power"):
        run(**store, callbacks=[interrupt])
    for a, b in zip(jax.tree.leaves(run(**store)), jax.tree.leaves(run()), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


def test_networks_in_other_places():
    """Check training behind z-scores, and the error where `fit` cannot reach the network."""
    x = np.random.default_rng(1).normal(size=(300, 2))
    options = {"context": CONTEXTS, "max_epochs": 3, "progress": False, "key": KEY}
    flow = with_network(Normalised(nnx.Rngs(0)))
    behind = afflow.Flow(
        flow.base, afflow.Embedded(flow.bijector, afflow.bijectors.ZScores(CONTEXTS), 3)
    )
    trained, _ = afflow.fit(behind, x, **options)
    assert (trained.bijector.bijector.network.norm.mean[...] != 0).all()
    inside = afflow.Chain([flow.bijector, afflow.Reverse(2)])
    with pytest.raises(ValueError, match="outermost"):
        afflow.fit(afflow.Flow(flow.base, inside), x, **options)


def test_a_network_with_dropout_is_saved_and_trained_on_a_mesh(tmp_path):
    flow = with_network(Normalised(nnx.Rngs(0), 0.5))
    x = np.random.default_rng(1).normal(size=(300, 2))
    mesh = jax.make_mesh((1,), ("data",))
    options = {"context": CONTEXTS, "max_epochs": 2, "progress": False, "key": KEY}
    flow, _ = afflow.fit(flow, x, mesh=mesh, **options)
    afflow.save(flow, tmp_path / "flow.zip")
    loaded = afflow.load(tmp_path / "flow.zip")
    np.testing.assert_array_equal(loaded.log_prob(x, CONTEXTS), flow.log_prob(x, CONTEXTS))
