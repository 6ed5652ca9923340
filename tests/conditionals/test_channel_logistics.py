"""Mixtures of logistics over the channels of a pixel: enumeration, samples and modes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import afflow
from afflow.univariates.mixture_cdf import mixture_parameters

KEY = jax.random.key(0)
PIXEL = afflow.conditionals.ChannelLogistics(3, 2, 4)
VALUES = np.array(list(itertools.product(range(4), repeat=3)))
PARAMS = jax.random.normal(jax.random.key(3), (PIXEL.num_params,)) * 3
log_prob = jax.jit(jax.vmap(PIXEL.log_prob, (0, None)))


def test_probabilities_sum_to_one_and_samples_follow_them():
    p = np.exp(log_prob(VALUES, PARAMS))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-9)
    num = 20_000
    drawn = jax.jit(jax.vmap(PIXEL.sample, (0, None)))(jax.random.split(KEY, num), PARAMS)
    share = np.bincount(np.asarray(drawn) @ [16, 4, 1], minlength=64) / num
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / num) + 1e-4).all()


def test_one_component_is_a_product_of_shifted_logistics():
    pixel, scalar = (
        afflow.conditionals.ChannelLogistics(3, 1, 9),
        afflow.conditionals.DiscretizedLogistics(1, 9),
    )
    mu, s, alpha = np.random.default_rng(0).normal(size=(3, 3))
    x = np.array([7, 0, 3])
    centred = x / 4 - 1
    red_to_green, red_to_blue, green_to_blue = np.tanh(alpha)
    gain = _find_gain(scalar)
    shift = [0, red_to_green * centred[0], red_to_blue * centred[0] + green_to_blue * centred[1]]
    expected = sum(
        scalar.log_prob(x[c], jnp.array([0.0, mu[c] + shift[c] / gain, s[c]])) for c in range(3)
    )
    params = jnp.concatenate([jnp.zeros(1), mu, s, alpha])
    np.testing.assert_allclose(pixel.log_prob(jnp.array(x), params), expected, rtol=1e-9)


def _find_gain(scalar):
    """Return the slope of the location by its parameter, from the symmetry of one component."""
    zero, one = (mixture_parameters(scalar, jnp.array([0.0, mu, 0.0]))[1] for mu in (0.0, 1.0))
    return (one - zero).item()


def test_the_mode_is_the_most_probable_pixel_of_narrow_components():
    narrow = PARAMS.at[8:14].set(-8.0)  # log-scales
    p = log_prob(VALUES, narrow)
    np.testing.assert_array_equal(PIXEL.mode(narrow), VALUES[np.argmax(p)])


def test_values_outside_and_gradients():
    outside = jnp.array([[-1.0, 0, 0], [0, 4, 0], [0, 0, 0.5], [jnp.nan, 0, 0]])
    found = log_prob(outside, PARAMS)
    assert (found[:3] == -jnp.inf).all()
    assert np.isnan(found[3])
    gradient = jax.jit(jax.vmap(jax.grad(PIXEL.log_prob, 1), (0, None)))(VALUES, 50 * PARAMS)
    assert np.isfinite(gradient).all()
    with pytest.raises(ValueError, match="num_channels"):
        afflow.conditionals.ChannelLogistics(0)


@pytest.mark.parametrize("radius", [0, 1, 2.5, 4])
def test_the_mode_near_a_pixel_is_that_of_each_channel_in_turn(radius):
    p = np.exp(log_prob(VALUES, PARAMS)).reshape(4, 4, 4)
    found = jax.vmap(PIXEL.mode_near, (0, None, None))(VALUES, radius, PARAMS)
    for x, z in zip(VALUES, np.asarray(found), strict=True):
        near = np.abs(np.arange(4) - x[:, None]) <= radius  # (C, L)
        red = np.argmax(np.where(near[0], p.sum((1, 2)), -1))
        green = np.argmax(np.where(near[1], p[red].sum(1), -1))
        blue = np.argmax(np.where(near[2], p[red, green], -1))
        np.testing.assert_array_equal(z, [red, green, blue])


def test_values_that_are_no_levels():
    found = log_prob(jnp.array([[jnp.nan, 9.0, 1.0], [1.0, 9.0, 1.0], [jnp.inf, 0.0, 0.0]]), PARAMS)
    np.testing.assert_array_equal(found, [np.nan, -np.inf, -np.inf])
    gradient = jax.grad(PIXEL.log_prob, 1)(jnp.array([jnp.inf, 0.0, 0.0]), PARAMS)
    assert np.isfinite(gradient).all()
