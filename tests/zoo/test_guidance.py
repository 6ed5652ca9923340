"""Guided and cooled flows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize, transformer

import afflow
from afflow.zoo import cool, guide

KEY = jax.random.key(0)
CONTEXT, NULL = jnp.array([1.0, 0.0]), jnp.array([0.3, -0.2])


def repeated():
    """Return a flow whose layers are in a `Repeat`, in a `Chain`, in an `Inverse`, in an image."""
    sizes = {"num_layers": 1, "width": 4, "num_heads": 2, "context_dim": 2}
    flow = randomize(afflow.zoo.tarflow((2, 4), 2, num_blocks=3, **sizes, rngs=nnx.Rngs(0)))
    return afflow.Flow(flow.base, afflow.Inverse(afflow.Inverse(flow.bijector)))


def test_weights_grow_along_the_tokens_or_not():
    network = transformer(4, 2, context_dim=2)
    x = jnp.arange(4.0)
    given, null = network(x, CONTEXT), network(x, NULL)
    for grows, share in ((True, np.arange(4) / 3), (False, np.ones(4))):
        guided = afflow.conditioners.Guided(network, 1.5, NULL, grows=grows)
        expected = given + 1.5 * share[:, None] * (given - null)
        np.testing.assert_allclose(guided(x, CONTEXT), expected, rtol=1e-10)


def test_a_high_temperature_attends_to_all_alike():
    network = transformer(6, 2, num_layers=1)
    x = jnp.array([3.0, -1.0, 2.0, 0.5, -2.0, 0.0])
    warm = network.with_temperature(1e9)(x)
    swapped = network.with_temperature(1e9)(x[jnp.array([1, 0, 2, 3, 4, 5])])
    np.testing.assert_allclose(warm[3:], swapped[3:], atol=1e-7)
    assert not np.allclose(network(x)[3:], network(x[jnp.array([1, 0, 2, 3, 4, 5])])[3:])
    np.testing.assert_array_equal(network.with_temperature(1.0)(x), network(x))
    guided = afflow.conditioners.Guided(network, 2.0, temperature=1e9, grows=False)
    np.testing.assert_allclose(guided(x), 3 * network(x) - 2 * warm, rtol=1e-8)


def test_a_guided_flow_has_the_density_of_its_samples():
    flow = repeated()
    guided = guide(flow, 1.5, NULL)
    x, log_prob = guided.sample_and_log_prob(KEY, 4, CONTEXT)
    np.testing.assert_allclose(guided.log_prob(x, CONTEXT), log_prob, rtol=1e-9)
    assert not np.allclose(flow.log_prob(x, CONTEXT), log_prob)
    # A flow guided by weight 0, or in the null context, is the flow.
    np.testing.assert_allclose(guide(flow, 0.0).log_prob(x, CONTEXT), flow.log_prob(x, CONTEXT))
    np.testing.assert_allclose(guided.log_prob(x, NULL), flow.log_prob(x, NULL))


def test_a_repeat_is_guided_as_its_copies_are():
    flow = repeated()
    repeat = flow.bijector.bijector.bijector.bijectors[0].bijector
    guided = guide(flow, 1.5).bijector.bijector.bijector.bijectors[0].bijector
    x = jax.random.normal(KEY, repeat.event_shape)
    expected = x
    for i in range(3):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], repeat.layers)
        expected = guide(layer, 1.5).forward(expected, CONTEXT)
    np.testing.assert_allclose(guided.forward(x, CONTEXT), expected, rtol=1e-9)


def test_a_guided_flow_is_saved(tmp_path):
    guided = guide(repeated(), 1.5, NULL)
    afflow.save(guided, tmp_path / "flow.zip")
    x = jax.random.normal(KEY, (3, 2, 4))
    again = afflow.load(tmp_path / "flow.zip")
    np.testing.assert_array_equal(again.log_prob(x, CONTEXT), guided.log_prob(x, CONTEXT))


def test_a_noisy_flow_is_guided_too():
    model = afflow.models.NoisyFlow(repeated(), 0.1)
    guided, x = guide(model, 1.5), jnp.zeros((2, 4))
    expected = guide(model.flow, 1.5).log_prob(x, CONTEXT)
    np.testing.assert_allclose(guided.flow.log_prob(x, CONTEXT), expected)


def test_models_that_cannot_be_guided_are_errors():
    plain = afflow.maf(3, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="Expected a model with a conditioner"):
        guide(plain, 1.0)
    with pytest.raises(ValueError, match="Expected"):
        guide(plain, 1.0, temperature=2.0)  # no transformer
    with pytest.raises(ValueError, match="weight"):
        guide(repeated(), -1.0)
    with pytest.raises(ValueError, match="null_context"):
        guide(repeated(), 1.0, jnp.zeros(3))
    with pytest.raises(ValueError, match="or a temperature"):
        afflow.conditioners.Guided(transformer(4, 2), 1.0)


def test_a_cooled_flow_has_less_noise_and_an_exact_density():
    flow = repeated()
    cooled = cool(flow, 0.5)
    z = jax.random.normal(KEY, (2, 4))
    np.testing.assert_allclose(
        cooled.bijector.forward(z, CONTEXT), flow.bijector.forward(z / 2, CONTEXT), rtol=1e-9
    )
    x, log_prob = cooled.sample_and_log_prob(KEY, 3, CONTEXT)
    np.testing.assert_allclose(cooled.log_prob(x, CONTEXT), log_prob, rtol=1e-9)
    with pytest.raises(ValueError, match="temperature"):
        cool(flow, 0.0)


@pytest.mark.parametrize("temperature", [0.0, -1.0, jnp.nan])
def test_temperatures_are_positive(temperature):
    with pytest.raises(ValueError, match="temperature > 0"):
        afflow.conditioners.Guided(transformer(4, 2), 1.0, temperature=temperature)


def test_a_cooled_flow_embeds_its_context_once():
    inner = afflow.maf(2, num_layers=1, hidden=(4,), context_dim=3, rngs=nnx.Rngs(0))
    network = nnx.Linear(5, 3, rngs=nnx.Rngs(0))
    flow = randomize(afflow.Flow(inner.base, afflow.Embedded(inner.bijector, network, 5)))
    cooled = cool(flow, 0.5)
    assert isinstance(cooled.bijector, afflow.Embedded)
    z, h = jnp.array([0.3, -1.0]), jnp.ones(5)
    np.testing.assert_allclose(
        cooled.bijector.forward(z, h), flow.bijector.forward(0.5 * z, h), rtol=1e-12
    )


def test_a_temperature_and_dropout_go_together():
    network = transformer(4, 2, dropout=0.5)
    guided = afflow.conditioners.Guided(network, 2.0, temperature=3.0)
    flow = afflow.Flow(afflow.Normal(4), afflow.MaskedAutoregressive(guided, afflow.Affine()))
    flow, x = randomize(flow), jnp.arange(4.0)
    noisy = flow.training_log_prob(KEY, x)
    assert np.isfinite(noisy)
    assert noisy != flow.log_prob(x)
