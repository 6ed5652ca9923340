"""Purification against a search token by token, and p-values."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import cast, randomize

import afflow
from afflow.inference import find_p_value, purify

LEVELS = afflow.conditionals.DiscretizedLogistics(2, 8)
OPTIONS = {"channels": 4, "num_layers": 1, "kernel_size": 3, "conditional": LEVELS}


def made(conditional, **options):
    """Return a model of four tokens with random weights."""
    sizes = {"features": conditional.features, "context_dim": options.pop("context_dim", 0)}
    network = afflow.MADE(4, conditional.num_params, (9,), **sizes, rngs=nnx.Rngs(0))
    return randomize(afflow.AutoregressiveModel(network, conditional, **options), 1.0)


@cache
def images(dtype="float64"):
    """Return a model of grey images with random weights."""
    model = afflow.zoo.gated_pixelcnn((2, 3), **OPTIONS, rngs=nnx.Rngs(0))
    return cast(randomize(model, 1.0), dtype)


def colours():
    """Return a model of colour images with random weights, whose pixels have a `TokenModel`."""
    return randomize(afflow.zoo.gated_pixelcnn((2, 2, 2), **OPTIONS, rngs=nnx.Rngs(0)), 1.0)


def draw(model, size=5, num=8):
    """Return events with uniform values below `num`."""
    shape = (size, *model.event_shape)
    return np.random.default_rng(0).integers(0, num, shape)


def list_values(model):
    """Return the function of an event and a context that gives its terms, and their order."""
    inner = getattr(model, "model", model)
    order = inner.order or range(inner.event_shape[0])
    if len(inner.event_shape) == 1:
        return lambda z, context: model.log_conditionals(z, context).reshape(len(z), -1), order
    pixel = inner.conditional.model

    def find_terms(z, context):
        z = z.reshape(len(z), *inner.event_shape)
        params = jax.vmap(lambda z: inner.conditioner(jax.vmap(inner.conditional.encode)(z)))(z)
        return pixel.log_conditionals(z, params).reshape(len(z), -1)

    return find_terms, range(np.prod(model.event_shape))


def search(model, x, radius, context=None, num=8):
    """Purify one event: try every value of each token, given the tokens before."""
    find_terms, order = list_values(model)
    z = x.astype(int).reshape(-1)
    for t in order:
        candidates = np.repeat(z[None], num, axis=0)
        candidates[:, t] = np.arange(num)
        terms = find_terms(candidates.reshape(num, *x.shape), context)[:, t]
        near = np.abs(np.arange(num) - int(x.reshape(-1)[t])) <= radius
        z[t] = np.argmax(np.where(near, terms, -np.inf))
    return z.reshape(x.shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("radius", [1, 2, 3.5])
def test_images_are_purified_as_by_a_search(dtype, radius):
    model = images(dtype)
    x = draw(model)
    x[0], x[1] = 0, 7  # the lowest and the highest level
    found = purify(model, x.astype(dtype), radius)
    assert found.dtype == int
    np.testing.assert_array_equal(found, [search(model, row, radius) for row in x])
    assert (np.asarray(found) != x).any()
    assert np.abs(np.asarray(found) - x).max() <= radius


def test_colours_are_purified_value_by_value():
    model = colours()
    x = draw(model, 4)
    found = purify(model, x, 2)
    np.testing.assert_array_equal(found, [search(model, row, 2) for row in x])
    np.testing.assert_array_equal(purify(model, x, 8)[1], model.greedy())
    np.testing.assert_array_equal(purify(model, x, 0), x)


def test_pixels_of_one_mixture_are_purified_in_turn():
    pixel = afflow.conditionals.ChannelLogistics(2, 2, 8)
    options = OPTIONS | {"conditional": pixel}
    model = randomize(afflow.zoo.gated_pixelcnn((2, 2, 2), **options, rngs=nnx.Rngs(0)), 1.0)
    network, x = model.model.conditioner, draw(model, 4)
    x[0], x[1] = 0, 7  # the lowest and the highest level

    def find(x, radius):
        """Purify one image pixel by pixel, with a full pass for each."""
        x, z = x.reshape(4, 2), np.zeros((4, 2), int)
        for t in range(4):
            params = network(jax.vmap(pixel.encode)(jnp.asarray(z)))[t]
            z[t] = pixel.mode_near(jnp.asarray(x[t]), radius, params)
        return z.reshape(2, 2, 2)

    found = purify(model, x, 2)
    np.testing.assert_array_equal(found, [find(row, 2) for row in x])
    assert (np.asarray(found) != x).any()
    np.testing.assert_array_equal(purify(model, x, 0), x)
    with pytest.raises(ValueError, match="values from 0 to 7, got 8"):
        purify(model, x + 1, 1)


@pytest.mark.parametrize("conditional", [afflow.conditionals.Categorical(5), LEVELS])
def test_an_order_and_contexts_are_heeded(conditional):
    model = made(conditional, order=(2, 0, 3, 1), context_dim=2)
    num = conditional.num_values
    x, contexts = draw(model, 3, num), np.random.default_rng(1).normal(size=(2, 1, 2)) * 3
    found = purify(model, x, 1, contexts)  # (2, 3, 4)
    expected = [[search(model, row, 1, context[0], num) for row in x] for context in contexts]
    np.testing.assert_array_equal(found, expected)
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize("model", [images(), made(afflow.conditionals.Bernoulli())])
def test_the_smallest_and_the_largest_radius(model):
    num = getattr(model, "conditional", LEVELS).num_values
    x = draw(model, 6, num).reshape(2, 3, *model.event_shape)
    np.testing.assert_array_equal(purify(model, x, 0), x)
    np.testing.assert_array_equal(purify(model, x.astype(np.uint8), 0.5), x)
    greedy = np.broadcast_to(model.greedy(), x.shape)
    for radius in (7, 1000, np.inf):
        np.testing.assert_array_equal(purify(model, x, radius), greedy)


class Certain(afflow.conditioners.Conditioner):
    """Logits under which every token is 0."""

    event_shape, num_params, context_shape = (4, 5), 5, None

    def __call__(self, x, context=None):
        return jnp.full((4, 5), -jnp.inf).at[:, 0].set(0.0)


def test_a_value_without_a_probable_neighbour_stays_within_the_radius():
    model = afflow.AutoregressiveModel(Certain(), afflow.conditionals.Categorical(5))
    np.testing.assert_array_equal(purify(model, np.array([4, 3, 0, 1]), 1), [3, 2, 0, 0])


def test_compiled_and_batched_calls_agree():
    model, x = images(), draw(images())
    expected = purify(model, x, 2)
    np.testing.assert_array_equal(jax.jit(lambda x: purify(model, x, 2))(x), expected)
    np.testing.assert_array_equal(jax.vmap(lambda x: purify(model, x, 2))(x), expected)
    np.testing.assert_array_equal(purify(model, x[0], 2), expected[0])
    assert purify(model, x[:0], 2).shape == (0, 2, 3)


def test_the_greedy_event_is_a_fixed_point():
    greedy = images().greedy()
    np.testing.assert_array_equal(purify(images(), greedy, 3), greedy)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.nan, "whole numbers .* got nan"),
        (2.5, "whole numbers .* got 2.5"),
        (8, "values from 0 to 7, got 8"),
        (-1, "values from 0 to 7, got -1"),
    ],
)
def test_other_values_are_errors(value, message):
    x = draw(images()).astype(float)
    x[3, 1, 2] = value
    with pytest.raises(ValueError, match=message):
        purify(images(), x, 1)


def test_bytes_are_purified_at_all_256_levels():
    model = made(afflow.conditionals.DiscretizedLogistics(1))
    x = np.array([[0, 255, 128, 3], [255, 0, 7, 200]], np.uint8)
    found = purify(model, x, 9)
    np.testing.assert_array_equal(found, [search(model, row, 9, num=256) for row in x])
    assert found.max() > 127  # beyond the range of signed bytes


def test_other_arguments_are_errors():
    x = draw(images())
    for radius in (-1, np.nan, "wide"):
        with pytest.raises(ValueError, match="a number radius >= 0"):
            purify(images(), x, radius)
    with pytest.raises(ValueError, match=r"x.shape \(..., 2, 3\)"):
        purify(images(), x[..., :2], 1)
    with pytest.raises(ValueError, match="AutoregressiveModel"):
        purify(afflow.maf(3, rngs=nnx.Rngs(0)), x[:, 0], 1)
    mixture = afflow.conditionals.MixtureOf(2, afflow.univariates.LogisticCDF())
    with pytest.raises(ValueError, match="discrete scalars"):
        purify(made(mixture), x[:, 0, :1].repeat(4, 1), 1)
    with pytest.raises(ValueError, match="no context"):
        purify(images(), x, 1, np.zeros(2))


def test_p_values_of_exchangeable_events_are_uniform():
    """Chi-square with 19 degrees of freedom: above 43.8 with probability 0.001."""
    values = np.random.default_rng(0).normal(size=(4000, 20))
    p = np.array([find_p_value(row[0], row[1:]) for row in values])
    ranks = np.rint(20 * p).astype(int)
    np.testing.assert_allclose(ranks, 20 * p, rtol=1e-12)
    assert ranks.min() >= 1
    counts = np.bincount(ranks, minlength=21)[1:]
    assert np.square(counts - 200).sum() / 200 < 43.8


def test_p_values_at_ties_and_beyond_the_reference():
    reference = jnp.array([-2.0, -5.0, -2.0, -jnp.inf])
    log_prob = jnp.array([[-2.0, -5.0, -jnp.inf], [-6.0, 3.0, jnp.nan]])
    expected = [[1.0, 0.6, 0.4], [0.4, 1.0, np.nan]]
    np.testing.assert_allclose(find_p_value(log_prob, reference), expected, rtol=1e-12)
    by_count = 1 + (np.asarray(reference)[:, None, None] <= np.asarray(log_prob)).sum(0)
    np.testing.assert_allclose(5 * np.array(expected)[0], by_count[0], rtol=1e-12)
    assert np.isnan(find_p_value(jnp.zeros(2), reference.at[0].set(jnp.nan))).all()
    assert find_p_value(jnp.float32(0), jnp.zeros(3, jnp.float32)).dtype == jnp.float32
    for wrong in (jnp.zeros(0), jnp.zeros((2, 2)), jnp.array(1.0)):
        with pytest.raises(ValueError, match=r"reference.shape \(N,\)"):
            find_p_value(log_prob, wrong)
