"""Flows of the patches of an image: the layout of the patches, and the start of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize
from scipy import stats

import afflow
from afflow.bijectors import Patches

KEY = jax.random.key(0)
SIZES = {"num_layers": 1, "width": 8, "num_heads": 2, "rngs": nnx.Rngs(0)}


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3)])
def test_a_token_is_a_patch_of_the_image(shape):
    features = 4 * (shape[2] if len(shape) == 3 else 1)
    image = np.arange(np.prod(shape)).reshape(shape)
    tokens = Patches(afflow.Reverse(6, features=features), shape).enter(jnp.asarray(image))
    corners = [(i, j) for i in (0, 2) for j in (0, 2, 4)]
    expected = [image[i : i + 2, j : j + 2].reshape(-1) for i, j in corners]
    np.testing.assert_array_equal(tokens, expected)


def test_a_patch_of_one_pixel_is_a_scalar_token():
    image = np.arange(6.0).reshape(2, 3)
    reverse = Patches(afflow.Reverse(6), (2, 3))
    np.testing.assert_array_equal(reverse.forward(image), image[::-1, ::-1])


@pytest.mark.parametrize(
    ("bijector", "shape"),
    [
        (afflow.Reverse(6, features=4), (4, 5)),  # H W is too small
        (afflow.Reverse(6, features=4), (3, 8)),  # the patches do not fit
        (afflow.Reverse(6, features=5), (5, 6)),  # no square
        (afflow.Reverse(6, features=2), (2, 3)),  # two channels, but the image has one
        (afflow.bijectors.ActNorm((2, 3, 4)), (4, 6)),
    ],
)
def test_events_that_are_no_patches_are_errors(bijector, shape):
    with pytest.raises(ValueError, match="Expected a bijector whose events are the square"):
        Patches(bijector, shape)


def test_a_reversal_of_tokens_keeps_each_token():
    x = jnp.arange(6.0).reshape(3, 2)
    reverse = afflow.Reverse(3, features=2)
    np.testing.assert_array_equal(reverse.forward(x), x[::-1])
    assert reverse.noise_order == (4, 5, 2, 3, 0, 1)
    assert not reverse.is_triangular


def test_a_tarflow_starts_as_the_standardised_base():
    data = np.asarray(5 + 3 * jax.random.normal(KEY, (50, 4, 4)))
    flow = afflow.zoo.tarflow((4, 4), 2, num_blocks=3, data=data, **SIZES)
    z = (data - data.mean(0)) / data.std(0)
    expected = stats.norm.logpdf(z).sum((1, 2)) - np.log(data.std(0)).sum()
    np.testing.assert_allclose(flow.log_prob(data), expected, rtol=1e-6)


def test_a_block_sees_the_patches_before_and_the_next_block_those_after():
    flow = randomize(afflow.zoo.tarflow((2, 6), 2, num_blocks=1, **SIZES))
    noise = jax.jit(flow.bijector.inverse)

    def moved(flow_of_blocks, column):
        image = jnp.zeros((2, 6)).at[0, column].set(1.0)
        inverse = flow_of_blocks.bijector.inverse
        change = inverse(image) - inverse(jnp.zeros((2, 6)))
        return [bool(jnp.any(change[:, i : i + 2] != 0)) for i in (0, 2, 4)]

    assert noise(jnp.zeros((2, 6))).shape == (2, 6)
    # The order is reversed after a block, on the way to noise.
    assert moved(flow, 2) == [True, True, False]
    assert moved(flow, 4) == [True, False, False]
    two = randomize(afflow.zoo.tarflow((2, 6), 2, num_blocks=2, **SIZES))
    assert moved(two, 4) == [True, True, True]


@pytest.mark.parametrize("wrong", [{"patch": 3}, {"num_blocks": 0}, {"data": np.ones((5, 4, 3))}])
def test_wrong_sizes_are_errors(wrong):
    with pytest.raises(ValueError, match="Expected"):
        afflow.zoo.tarflow((4, 4), **{"patch": 2} | wrong, **SIZES)
