"""The loss on spectra: its values by an explicit sum, its gradients, and a fit of the power."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import randomize

import afflow
from afflow.inference import add_power_loss, find_spectrum, reverse_kl

KEY = jax.random.key(0)


def zero(flow, log_density, key, num_samples, context=None):
    """Return an objective without a divergence."""
    return jnp.zeros(())


class Gain(afflow.Bijector):
    """A bijector that scales a sound by the exponential of its context."""

    event_shape, context_shape = (40,), (1,)

    def forward_and_log_det(self, x, context=None):
        return x * jnp.exp(context), 40 * context[0]

    def inverse_and_log_det(self, y, context=None):
        return y * jnp.exp(-context), -40 * context[0]


def make_gains():
    """Return a flow that scales every sample of white noise."""
    return afflow.Flow(afflow.Normal(40), afflow.Elementwise(afflow.Affine(), 40))


def test_a_spectrum_is_the_explicit_sum():
    x, frame, hop = np.random.default_rng(0).normal(size=21), 8, 3
    j = np.arange(frame)
    window = np.sin(np.pi * j / frame) ** 2
    power = np.zeros(5)
    starts = [0, 3, 6, 9, 12]
    for start in starts:
        waves = np.exp(-2j * np.pi * np.outer(np.arange(5), j) / frame)
        power += np.abs(waves @ (window * x[start : start + frame])) ** 2 / (window**2).sum()
    got = find_spectrum(jnp.asarray(x), frame, hop)
    np.testing.assert_allclose(got, np.sqrt(power / len(starts)), rtol=1e-10)


def test_white_noise_has_power_one():
    x = jax.random.normal(KEY, (20_000,))
    np.testing.assert_allclose(find_spectrum(x)[1:-1], 1, atol=0.2)


def test_silence_has_a_finite_gradient():
    gradient = jax.grad(lambda x: find_spectrum(x, 8, 4).sum())(jnp.zeros(16))
    assert np.isfinite(gradient).all()


def test_float32():
    with jax.enable_x64(False):
        assert find_spectrum(jnp.ones(16, jnp.float32), 8, 4).dtype == jnp.float32


def test_the_loss_is_added_to_the_objective():
    flow, sounds = make_gains(), 3 * jax.random.normal(KEY, (5, 40))
    options = {"num_sounds": 400, "frame": 8, "hop": 4}
    values = [
        add_power_loss(objective, sounds, weight=weight, **options)(
            flow, lambda x: afflow.Normal(40).log_prob(x) - 7, KEY, 10
        )
        for objective, weight in [(reverse_kl, 0.0), (zero, 2.0), (reverse_kl, 2.0)]
    ]
    np.testing.assert_allclose(values[0], 7)
    np.testing.assert_allclose(values[2], values[0] + values[1])
    assert 40 < values[1] / 2 < 40 * 3


def test_a_fit_finds_the_power():
    sounds = 3 * jax.random.normal(KEY, (200, 40))
    flow, _ = afflow.fit_to_density(
        make_gains(),
        lambda x: 0 * x.sum(),
        key=KEY,
        objective=add_power_loss(zero, sounds, frame=16, hop=8),
        num_samples=1,
        num_steps=200,
        max_epochs=2,
        learning_rate=0.05,
        progress=False,
    )
    samples = flow.sample(KEY, 300)[:, 8:-8]  # the windows are nearly zero at both ends
    np.testing.assert_allclose(jnp.sqrt(jnp.square(samples).mean()), 3, rtol=0.1)


def test_recordings_meet_samples_of_their_context():
    flow, contexts = afflow.Flow(afflow.Normal(40), Gain()), jnp.array([[-1.0], [1.0]] * 50)
    sounds = jnp.exp(contexts) * jax.random.normal(KEY, (100, 40))
    same, swapped = (
        add_power_loss(zero, sounds, given, num_sounds=200, frame=8, hop=4)(
            flow, flow.log_prob, KEY, 1, contexts
        )
        for given in (contexts, -contexts)
    )
    assert 3 * same < swapped


def test_the_loss_reaches_the_parameters():
    flow = randomize(make_gains(), 0.1)
    objective = add_power_loss(zero, jnp.zeros((3, 40)), frame=16, hop=8)
    gradient = jax.grad(objective)(flow, flow.log_prob, KEY, 1)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(find_spectrum, jnp.zeros(5)), "at least 256 samples, got shape"),
        (partial(add_power_loss, zero, jnp.zeros(5)), r"Expected sounds \(N, T\)"),
        (partial(add_power_loss, zero, jnp.zeros((5, 9)), jnp.zeros((4, 1))), r"and \(4, 1\)"),
        (partial(add_power_loss, zero, jnp.zeros((5, 9)), weight=-1.0), "weight"),
        (partial(add_power_loss, zero, jnp.zeros((5, 9)), num_sounds=0), "num_sounds"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_distance_without_a_difference():
    """Check the mean over samples and recordings of one distribution: half their own distance."""
    flow, sounds = make_gains(), jax.random.normal(KEY, (500, 40))
    options = {"num_sounds": 500, "frame": 8, "hop": 4}
    equal, wider = (
        add_power_loss(zero, gain * sounds, **options)(flow, flow.log_prob, KEY, 1)
        for gain in (1.0, 1.5)
    )
    spectra = jax.vmap(lambda x: find_spectrum(x, 8, 4))(sounds)
    own = jnp.sqrt(jnp.square(spectra[:250] - spectra[250:]).mean(1)).mean()
    np.testing.assert_allclose(equal, 40 * own / 2, rtol=0.1)
    assert wider > 1.5 * equal
