"""Dropout in the networks of a flow: in `fit` alone, and of a density at every draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow
from afflow.models.dropout import Noisy, add_noise

KEY, OTHER = jax.random.key(0), jax.random.key(1)
X = jax.random.normal(KEY, (6, 3))
NETWORKS = {
    "made": lambda rngs: afflow.MADE(3, 2, hidden=(16, 16), dropout=0.5, rngs=rngs),
    "transformer": lambda rngs: afflow.conditioners.Transformer(
        3, 2, width=8, num_layers=1, num_heads=2, dropout=0.5, rngs=rngs
    ),
}


def layer(name):
    """Return a function that makes one autoregressive layer with dropout."""
    return lambda rngs: afflow.MaskedAutoregressive(NETWORKS[name](rngs), afflow.Affine())


def flow_of(bijector):
    """Return a flow with random weights."""
    return randomize(afflow.Flow(afflow.Normal(3), bijector), 0.7)


@pytest.fixture(scope="module")
def repeated():
    """Return two stacks of two layers with dropout, one in the other."""

    def make(rngs):
        return afflow.Repeat(layer("made"), 2, rngs=rngs)

    return flow_of(afflow.Repeat(make, 2, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_noise_of_training_alone(name):
    flow = flow_of(layer(name)(nnx.Rngs(0)))
    noisy = flow.training_log_prob(KEY, X)
    assert (noisy != flow.log_prob(X)).all()
    assert (noisy != flow.training_log_prob(OTHER, X)).all()
    still = flow.without_noise()
    np.testing.assert_array_equal(still.training_log_prob(KEY, X), flow.log_prob(X))
    assert still.without_noise() is still
    options = {"key": KEY, "batch_size": 3, "max_epochs": 1, "progress": False}
    fitted, history = afflow.fit(flow, X, validation=X, **options)
    np.testing.assert_allclose(history.validation[0], -fitted.log_prob(X).mean(), rtol=1e-6)
    assert fitted.bijector.conditioner.dropout == 0.5


def test_each_event_and_each_layer_has_separate_noise(repeated):
    same = jnp.broadcast_to(X[0], (6, 3))
    assert len(set(repeated.training_log_prob(KEY, same).tolist())) == 6
    noisy = add_noise(repeated.bijector, KEY).layers.layers.conditioner
    assert isinstance(noisy, Noisy)
    assert noisy.key.shape == (2, 2)
    assert len(np.unique(jax.random.key_data(noisy.key).reshape(4, -1), axis=0)) == 4
    chain = afflow.Chain([layer("made")(nnx.Rngs(i)) for i in range(2)])
    keys = [part.conditioner.key for part in add_noise(chain, KEY).bijectors]
    assert keys[0] != keys[1]


def test_a_draw_of_the_noise_is_a_flow(repeated):
    """Check both directions of a flow with its noise drawn, and their log-determinant."""
    bijector = add_noise(repeated.bijector, KEY)
    z, log_det = jax.jit(bijector.inverse_and_log_det)(X[0])
    exact = jnp.linalg.slogdet(jax.jacfwd(bijector.inverse)(X[0]))[1]
    np.testing.assert_allclose(log_det, exact, atol=1e-5)
    np.testing.assert_allclose(jax.jit(bijector.forward)(z), X[0], atol=1e-5)
    inverse = afflow.Flow(afflow.Normal(3), afflow.Inverse(repeated.bijector))
    assert (inverse.training_log_prob(KEY, X) != inverse.log_prob(X)).all()


@pytest.mark.parametrize(("residual", "hidden"), [(False, (16, 16)), (True, (16, 16, 16))])
def test_a_linear_network_keeps_its_mean(residual, hidden):
    options = {"dropout": 0.5, "residual": residual, "activation": lambda h: h}
    made = randomize(afflow.MADE(3, 2, hidden, **options, rngs=nnx.Rngs(0)), 0.5)
    draws = jax.jit(jax.vmap(lambda key: made.noisy(key, X[0])))(jax.random.split(KEY, 20_000))
    error = 5 * draws.std(0) / len(draws) ** 0.5 + 1e-5
    assert (jnp.abs(draws.mean(0) - made(X[0])) < error).all()
    assert (draws.std(0)[1:] > 0.01).all()


def test_rows_with_missing_values_train_with_dropout():
    flow = flow_of(layer("made")(nnx.Rngs(0)))
    x = X.at[:, 2].set(jnp.nan)
    still = flow.without_noise().observed_log_prob(KEY, x)
    np.testing.assert_allclose(still, flow.without_noise().observed_log_prob(OTHER, x))
    noisy = flow.observed_log_prob(KEY, x)
    assert (noisy != still).all()
    assert (noisy != flow.observed_log_prob(OTHER, x)).all()


def test_models_around_a_flow_train_with_its_dropout():
    flow = flow_of(layer("made")(nnx.Rngs(0)))
    whole = afflow.models.Dequantized(flow, [True, True, True])
    noisy = afflow.models.NoisyFlow(flow, 0.1)
    for model in (whole, noisy):
        x = jnp.zeros((6, 3))
        still = model.without_noise()
        found = still.training_log_prob(KEY, x)
        assert (found != model.training_log_prob(KEY, x)).all()
        np.testing.assert_array_equal(found, still.without_noise().training_log_prob(KEY, x))
    both = afflow.Ensemble([flow, flow])
    assert (both.training_log_prob(KEY, X) != both.log_prob(X)).all()
    np.testing.assert_allclose(both.without_noise().training_log_prob(KEY, X), both.log_prob(X))


def test_the_flows_of_a_vae_have_it_in_training():
    options = {"num_layers": 1, "hidden": (16,), "dropout": 0.5, "rngs": nnx.Rngs(0)}
    posterior = randomize(afflow.iaf(3, context_dim=3, **options))
    for prior in (afflow.Normal(3), randomize(afflow.maf(3, **options))):
        networks = nnx.Linear(3, 3, rngs=nnx.Rngs(1)), nnx.Linear(3, 3, rngs=nnx.Rngs(2))
        conditional = afflow.conditionals.Bernoulli()
        model = afflow.models.VAE(*networks, conditional, posterior, 3, prior)
        x = jnp.ones((6, 3), int)
        still = model.without_noise()
        found = still.training_log_prob(KEY, x)
        assert (found != model.training_log_prob(KEY, x)).all()
        np.testing.assert_array_equal(found, still.without_noise().training_log_prob(KEY, x))
        posterior = posterior.without_noise()  # then the prior alone has dropout


def test_a_solver_that_insists_on_the_kernel_trains_with_it():
    solver = afflow.Incremental(kernel=True)
    layers = afflow.MaskedAutoregressive(NETWORKS["made"](nnx.Rngs(0)), afflow.Affine(), solver)
    flow = flow_of(afflow.Inverse(layers))
    noisy = add_noise(flow.bijector, KEY)
    np.testing.assert_allclose(noisy.forward(noisy.inverse(X[0])), X[0], rtol=1e-5, atol=1e-5)
    assert jnp.isfinite(flow.training_log_prob(KEY, X)).all()


@pytest.mark.parametrize(("residual", "hidden"), [(False, ()), (True, (8,))])
def test_it_needs_units_to_drop(residual, hidden):
    with pytest.raises(ValueError, match="Expected units to drop, got hidden="):
        afflow.MADE(3, 2, hidden, residual=residual, dropout=0.1, rngs=nnx.Rngs(0))


def test_factories_take_it(tmp_path):
    options = {"dropout": 0.25, "hidden": (8,), "rngs": nnx.Rngs(0)}
    flow = afflow.nsf(3, num_layers=3, **options)
    afflow.save(flow, tmp_path / "flow.zip")
    loaded = afflow.load(tmp_path / "flow.zip")
    found = loaded.training_log_prob(KEY, X)
    np.testing.assert_array_equal(found, flow.training_log_prob(KEY, X))
    model = afflow.made_model(3, **options)
    assert model.conditioner.is_noisy
    with pytest.raises(ValueError, match="dropout"):
        afflow.maf(3, dropout=1.0, rngs=nnx.Rngs(0))


def parts():
    """Return density models with dropout within a conditioner, and within a token."""
    rngs, bits = nnx.Rngs(0), afflow.conditionals.Bernoulli()
    made = afflow.MADE(4, 1, hidden=(16, 16), dropout=0.5, rngs=rngs)
    token = afflow.made_model(2, hidden=(16,), context_dim=3, dropout=0.5, rngs=rngs)
    over = afflow.conditioners.Recurrent(3, 3, (4,), features=2, rngs=rngs)
    return {
        "fixed sum": afflow.AutoregressiveModel(afflow.conditioners.FixedSum(made, 2), bits),
        "token": afflow.AutoregressiveModel(over, afflow.models.TokenModel(token)),
    }


@pytest.mark.parametrize("name", ["fixed sum", "token"])
def test_parts_within_parts_have_it_in_training(name):
    model = randomize(parts()[name], 1.0)
    x = model.sample(KEY, 3)
    noisy, again, other = (model.training_log_prob(key, x) for key in (KEY, KEY, OTHER))
    np.testing.assert_array_equal(noisy, again)
    assert (noisy != other).all()
    quiet = model.without_noise()
    np.testing.assert_allclose(quiet.training_log_prob(KEY, x), model.log_prob(x), rtol=1e-12)
