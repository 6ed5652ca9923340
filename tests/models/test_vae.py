"""The variational autoencoder with a flow as its posterior: its bound by quadrature, its shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

KEY = jax.random.key(0)
BINARY = afflow.conditionals.Bernoulli()
EVENTS = np.array([[a, b] for a in range(2) for b in range(2)])


class Affine(nnx.Module):
    """A linear map between two vectors, with a bias."""

    def __init__(self, num_inputs, num_outputs, seed):
        rng = np.random.default_rng(seed)
        self.weights = nnx.Param(jnp.asarray(rng.normal(size=(num_inputs, num_outputs))))
        self.bias = nnx.Param(jnp.asarray(rng.normal(size=num_outputs)))

    def __call__(self, x):
        return x @ self.weights[...].astype(x.dtype) + self.bias[...].astype(x.dtype)


def tiny(prior=None, event_shape=(2,), **options):
    """Return a model of two binary values with a code of one number."""
    sizes = {"num_layers": 1, "hidden": (3,), "context_dim": 2} | options
    posterior = randomize(afflow.iaf(1, **sizes, rngs=nnx.Rngs(0)))
    networks = Affine(2, 2, 0), Affine(1, 2, 1)
    return afflow.models.VAE(*networks, BINARY, posterior, event_shape, prior)


def integrate(model, x, prior):
    """Return `log p(x)` and the bound of one event by quadrature over the code, with NumPy."""
    z = np.linspace(-30, 30, 60_001)
    params = z[:, None] * np.asarray(model.decoder.weights[...]) + np.asarray(
        model.decoder.bias[...]
    )
    signs = 2 * x - 1
    joint = -np.log1p(np.exp(-signs * params)).sum(1) + prior(z)
    context = x @ np.asarray(model.encoder.weights[...]) + np.asarray(model.encoder.bias[...])
    log_q = np.asarray(model.posterior.log_prob(jnp.asarray(z)[:, None], jnp.asarray(context)))
    width = z[1] - z[0]
    assert abs(np.exp(log_q).sum() * width - 1) < 1e-5
    bound = (np.exp(log_q) * (joint - log_q)).sum() * width
    return np.log(np.exp(joint).sum() * width), bound


def log_normal(z):
    return -(z**2) / 2 - np.log(2 * np.pi) / 2


def test_the_bound_and_the_probability_by_quadrature():
    model, num = tiny(), 4000
    draws = np.asarray(model.elbo(KEY, np.repeat(EVENTS[None], num, 0))).T  # (4, num)
    total = 0.0
    for x, found in zip(EVENTS, draws, strict=True):
        log_p, bound = integrate(model, x, log_normal)
        assert bound < log_p - 0.01
        assert abs(found.mean() - bound) < 5 * found.std() / np.sqrt(num)
        weights = np.exp(found - log_p)
        assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(num)
        total += np.exp(log_p)
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_a_flow_as_the_prior():
    prior = randomize(afflow.maf(1, num_layers=1, hidden=(2,), rngs=nnx.Rngs(3)))
    model, num = tiny(prior), 4000
    x = EVENTS[1]
    log_p, bound = integrate(model, x, lambda z: np.asarray(prior.log_prob(z[:, None])))
    found = np.asarray(model.elbo(KEY, np.repeat(x[None], num, 0)))
    assert abs(found.mean() - bound) < 5 * found.std() / np.sqrt(num)
    samples = model.sample(KEY, 4000)
    share = (samples == x[None]).all(-1).mean()
    assert abs(share - np.exp(log_p)) < 5 * np.sqrt(share / 4000)


def test_many_draws_tighten_the_bound():
    model = tiny()
    x = np.repeat(EVENTS[:1], 2000, 0)
    one, many = model.elbo(KEY, x).mean(), model.elbo(KEY, x, 50).mean()
    log_p, bound = integrate(model, EVENTS[0], log_normal)
    assert one < many < log_p + 0.02
    assert many > (log_p + bound) / 2
    np.testing.assert_array_equal(model.log_prob(EVENTS), model.log_prob(EVENTS))


def test_the_weight_of_the_divergence_in_training():
    """Check the weights 0, 1 and 2 against each other with one key, and that bounds ignore them."""
    models = [tiny().with_kl_weight(weight) for weight in (0.0, 1.0, 2.0)]
    zero, one, two = (model.training_log_prob(KEY, EVENTS) for model in models)
    np.testing.assert_allclose(zero - one, one - two, rtol=1e-9)
    assert (abs(zero - one) > 1e-3).all()
    for model in models:
        np.testing.assert_array_equal(model.elbo(KEY, EVENTS), models[1].elbo(KEY, EVENTS))
    with pytest.raises(ValueError, match="kl_weight"):
        models[0].with_kl_weight(-1.0)


def test_chunks_and_contexts():
    """Check that a chunk changes nothing, and that a context is refused."""
    model = tiny()
    np.testing.assert_allclose(model.log_prob(EVENTS, chunk=2), model.log_prob(EVENTS), rtol=1e-9)
    np.testing.assert_array_equal(model.sample(KEY, 6, chunk=2), model.sample(KEY, 6))
    calls = [
        lambda: model.log_prob(EVENTS, EVENTS),
        lambda: model.sample(KEY, 2, EVENTS),
        lambda: model.training_log_prob(KEY, EVENTS, EVENTS),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="context"):
            call()


def test_codes_and_events():
    model = tiny()
    z = model.encode(KEY, EVENTS)
    assert z.shape == (4, 1)
    params = jax.vmap(model.decoder)(z)
    np.testing.assert_array_equal(model.decode(z), params > 0)
    drawn = model.decode(jnp.repeat(z[:1], 4000, 0), KEY)
    p = jax.nn.sigmoid(params[0])
    assert (abs(drawn.mean(0) - np.asarray(p)) < 5 * 0.5 / np.sqrt(4000)).all()
    assert not (drawn == drawn[:1]).all()
    assert model.decode(z.reshape(2, 2, 1), KEY).shape == (2, 2, 2)


@pytest.mark.parametrize("num_layers", [0, 2])
def test_the_factory(num_layers):
    """Check images of grey levels, and that training moves every array."""
    sizes = {"num_layers": num_layers, "hidden": (6,), "flow_hidden": (4,), "context_dim": 3}
    levels = afflow.conditionals.DiscretizedLogistics(2, 4)
    model = afflow.zoo.vae((2, 3), 2, conditional=levels, **sizes, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).integers(4, size=(40, 2, 3))
    trained, history = afflow.fit(model, x, key=KEY, max_epochs=3, batch_size=8, progress=False)
    before, after = (jax.tree.leaves(nnx.state(m, nnx.Param)) for m in (model, trained))
    assert all((a != b).any() for a, b in zip(before, after, strict=True) if a.size)
    assert np.isfinite(history.train).all()
    assert trained.sample(KEY, 5).shape == (5, 2, 3)
    jacobian = jax.jacobian(lambda e: trained.posterior.bijector.forward(e, jnp.ones(3)))(
        jnp.ones(2)
    )
    assert (num_layers == 0) == (jnp.abs(jacobian - jnp.diag(jnp.diag(jacobian))).max() < 1e-12)


def test_saved_and_loaded(tmp_path):
    model = randomize(afflow.zoo.vae((2, 2), 2, hidden=(3,), context_dim=2, rngs=nnx.Rngs(0)))
    afflow.save(model, tmp_path / "vae.zip")
    loaded = afflow.load(tmp_path / "vae.zip")
    np.testing.assert_array_equal(loaded.sample(KEY, 3), model.sample(KEY, 3))


def test_parts_that_do_not_fit():
    posterior = afflow.iaf(1, num_layers=1, hidden=(3,), context_dim=2, rngs=nnx.Rngs(0))
    good, bad, make = Affine(2, 2, 0), Affine(2, 3, 0), afflow.models.VAE
    decoder = Affine(1, 2, 1)
    with pytest.raises(ValueError, match=r"encoder to return \(2,\), got shape \(3,\)"):
        make(bad, decoder, BINARY, posterior, 2)
    with pytest.raises(ValueError, match=r"decoder to return \(2, 1\), got shape \(1,\)"):
        make(good, Affine(1, 1, 1), BINARY, posterior, 2)
    with pytest.raises(ValueError, match="a prior of event_shape"):
        make(good, decoder, BINARY, posterior, 2, afflow.Normal(2))
    with pytest.raises(ValueError, match="a Distribution or Flow as prior, got 3"):
        make(good, decoder, BINARY, posterior, 2, 3)
    with pytest.raises(ValueError, match="posterior with a context"):
        make(good, decoder, BINARY, afflow.iaf(1, num_layers=1, rngs=nnx.Rngs(0)), 2)
