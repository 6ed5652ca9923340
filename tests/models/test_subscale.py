"""Subscale pixel networks and depth upscaling: order, enumeration, and cached sampling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize, subscale
from test_images import Plain, find_seen

import afflow
from afflow.nets.slices import Slices

KEY = jax.random.key(0)
CONTEXTS = jnp.array([[0.3, -1.0], [2.0, 0.5]])
SIZES = {"factor": 2, "width": 6, "num_layers": 1, "num_heads": 2, "num_blocks": 1}


@pytest.mark.parametrize(
    ("shape", "factor"),
    [((5, 7), 3), ((4, 6), 2), ((1, 13), 3), ((7, 1), 2), ((2, 3), 4), ((3, 4), 1)],
)
def test_a_pixel_sees_every_pixel_before_it_in_the_order(shape, factor):
    network = subscale(shape, 1, factor=factor)
    places = np.arange(np.prod(shape)).reshape(shape)
    slices = [places[a::factor, b::factor] for a, b in np.ndindex(factor, factor)]
    assert network.order == tuple(np.concatenate([part.ravel() for part in slices]))
    found = find_seen(network)
    np.testing.assert_array_equal(found, np.tri(len(found), k=-1, dtype=bool))


@pytest.mark.parametrize(("shape", "factor"), [((5, 7), 3), ((4, 4), 2), ((2, 3), 4)])
def test_windows_surround_the_pixels_of_a_slice(shape, factor):
    slices, image = Slices(shape, factor), np.random.default_rng(0).normal(size=(*shape, 2))
    (rows, columns), (grid_rows, grid_columns) = slices.distances, slices.grid
    padded = np.pad(image, ((12, 12), (12, 12), (0, 0)))
    for number, (a, b) in enumerate(np.ndindex(rows, columns)):
        windows = slices.cut_windows(image, number)
        assert windows.shape == (grid_rows + 2, grid_columns + 2, rows * columns * 2)
        for i, j in np.ndindex(*windows.shape[:2]):
            top = 12 + a + rows * (i - 1) - rows // 2
            left = 12 + b + columns * (j - 1) - columns // 2
            expected = padded[top : top + rows, left : left + columns]
            np.testing.assert_array_equal(windows[i, j], expected.reshape(-1))


def make(name):
    """Return a small model of images with random weights."""
    three = afflow.conditionals.Categorical(3)
    arguments = {
        "binary": ((3, 3), {"context_dim": 2}),
        "colours": ((1, 3, 2), {"context_dim": 2}),
        "levels": ((1, 3), {"context_dim": (1, 3, 2), "conditional": three}),
    }
    shape, options = arguments[name]
    return randomize(afflow.zoo.subscale(shape, **SIZES, **options, rngs=nnx.Rngs(0)), 0.7)


def contexts_of(model):
    """Return two contexts of a model."""
    if len(model.context_shape) == 1:
        return CONTEXTS
    return jax.random.normal(KEY, (2, *model.context_shape))


def enumerate_events(num_levels, shape):
    """Return all events of a shape."""
    events = itertools.product(range(num_levels), repeat=int(np.prod(shape)))
    return np.array(list(events)).reshape(-1, *shape)


def assert_samples_follow(model, x, num_levels, context, num=4000):
    """Assert that the events `x`, all in order, are drawn as often as they are probable."""
    drawn = np.asarray(model.sample(KEY, num, context)).reshape(num, -1)
    codes = drawn @ num_levels ** np.arange(drawn.shape[1])[::-1]
    share = np.bincount(codes, minlength=len(x)) / num
    p = np.exp(model.log_prob(x, context))
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / num) + 1e-3).all()


@pytest.mark.parametrize("name", ["binary", "colours", "levels"])
def test_probabilities_of_small_images_sum_to_one(name):
    model, levels = make(name), 3 if name == "levels" else 2
    contexts, x = contexts_of(model), enumerate_events(levels, model.event_shape)
    log_prob = model.log_prob(x[:, None], contexts)
    np.testing.assert_allclose(jnp.exp(log_prob).sum(0), 1, rtol=1e-9)
    assert jnp.std(log_prob[:, 0] - log_prob[:, 1]) > 1e-3
    terms = model.log_conditionals(x[:7], contexts[0])
    np.testing.assert_allclose(terms.reshape(7, -1).sum(1), log_prob[:7, 0], rtol=1e-9)
    assert_samples_follow(model, x, levels, contexts[0])


@pytest.mark.parametrize("name", ["binary", "colours", "levels"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_cached_sampling_equals_full_passes(name, dtype):
    model = jax.tree.map(lambda a: a.astype(dtype), make(name))
    contexts, inner = contexts_of(model).astype(dtype), model.model
    slow = afflow.AutoregressiveModel(Plain(inner.conditioner), inner.conditional, inner.order)
    slow = afflow.models.Reshaped(slow, model.event_shape)
    np.testing.assert_array_equal(model.sample(KEY, 5, contexts), slow.sample(KEY, 5, contexts))
    np.testing.assert_array_equal(model.greedy(contexts), slow.greedy(contexts))


def test_the_terms_belong_to_the_pixels_of_the_image():
    model, context = make("binary"), CONTEXTS[0]
    inner = model.model
    plain = afflow.AutoregressiveModel(inner.conditioner, inner.conditional)
    x = np.random.default_rng(0).integers(0, 2, (3, 3))
    order = np.array(inner.order)
    expected = plain.log_conditionals(x.reshape(-1)[order], context)
    found = model.log_conditionals(x, context).reshape(-1)[order]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_first_slices_are_completed():
    model, context = make("binary"), CONTEXTS[0]
    x = model.sample(KEY, (), context)
    observed = np.zeros((3, 3), bool)
    observed[::2] = True  # slices (0, 0) and (0, 1)
    drawn = model.complete(x, observed, jax.random.key(1), context)
    np.testing.assert_array_equal(drawn[::2], x[::2])
    with pytest.raises(ValueError, match="come first"):
        model.complete(x, observed[::-1] & [True, True, False], KEY, context)


def test_sizes_that_do_not_fit_are_errors():
    for sizes, match in [
        ({"factor": 0}, "factor >= 1"),
        ({"num_blocks": 0}, "num_blocks >= 1"),
        ({"num_heads": 4}, "divides width"),
        ({"context_dim": (4, 3, 1)}, "context image"),
        ({"context_dim": -1}, "context_dim"),
        ({"dropout": 1.0}, "dropout"),
        ({"shape": (3, 4, 3)}, "channels are features"),
    ]:
        with pytest.raises(ValueError, match=match):
            subscale(**sizes)


def make_upscaled(shape=(1, 2), scale=0.7, **options):
    """Return a model of images of 8 levels, whose last bit comes after the two others."""
    four, two = afflow.conditionals.Categorical(4), afflow.conditionals.Bernoulli()
    sizes = {**SIZES, **options, "rngs": nnx.Rngs(0)}
    high = afflow.zoo.subscale(shape, conditional=four, context_dim=2, **sizes)
    low = afflow.zoo.subscale(shape, conditional=two, context_dim=(*shape, 1), **sizes)
    parts = randomize(high, scale), randomize(low, scale, seed=1)
    return afflow.models.DepthUpscaled(*parts, num_levels=8, low_bits=1)


def test_probabilities_of_upscaled_images_sum_to_one():
    model, x = make_upscaled(), enumerate_events(8, (1, 2))
    log_prob = model.log_prob(x[:, None], CONTEXTS)
    np.testing.assert_allclose(jnp.exp(log_prob).sum(0), 1, rtol=1e-9)
    first = model.high.log_prob(x >> 1, CONTEXTS[0])
    second = model.low.log_prob(x & 1, 2 / 3 * (x >> 1)[..., None] - 1.0)
    np.testing.assert_allclose(first + second, log_prob[:, 0], rtol=1e-12)
    assert np.std(second) > 0.01
    np.testing.assert_allclose(model.log_prob(x.astype(float), CONTEXTS[0]), first + second)
    outside = np.array([[[8, 0]], [[0, -1]], [[0.5, 0]], [[np.inf, 0]]])
    assert (model.log_prob(outside, CONTEXTS[0]) == -np.inf).all()
    assert np.isnan(model.log_prob(np.array([[np.nan, 0]]), CONTEXTS[0]))
    assert_samples_follow(model, x, 8, CONTEXTS[0])
    drawn = model.sample(KEY, 3, CONTEXTS)
    assert drawn.shape == (3, 2, 1, 2)
    np.testing.assert_array_equal(model.sample(KEY, 3, CONTEXTS, chunk=2), drawn)
    parts = model.log_prob(x[:, None], CONTEXTS, chunk=7)
    np.testing.assert_allclose(parts, log_prob, rtol=1e-12)


def test_the_low_bits_may_have_a_vector_as_context():
    high = afflow.made_model(3, conditional=afflow.conditionals.Categorical(4), rngs=nnx.Rngs(0))
    low = afflow.nade(3, hidden=4, context_dim=3, rngs=nnx.Rngs(0))
    parts = randomize(high), randomize(low)
    model = afflow.models.DepthUpscaled(*parts, num_levels=8, low_bits=1)
    log_prob = model.log_prob(enumerate_events(8, (3,)))
    np.testing.assert_allclose(jnp.exp(log_prob).sum(), 1, rtol=1e-9)


def test_an_upscaled_image_is_trained_on_and_saved(tmp_path):
    model = make_upscaled((1, 3), 0.0, dropout=0.2)
    noisy = [model.training_log_prob(key, jnp.ones((1, 3)), CONTEXTS[0]) for key in (KEY, KEY)]
    np.testing.assert_array_equal(*noisy)
    x = np.random.default_rng(0).integers(0, 8, (64, 1, 1)) * np.ones((1, 1, 3), int)
    options = {"key": KEY, "max_epochs": 60, "progress": False, "learning_rate": 0.01}
    fitted, history = afflow.fit(model, x, context=np.ones((64, 2)), **options)
    assert history.validation[history.best_epoch] < 4  # 9 log 2 is 6.2; 3 log 2 is 2.1
    other = jax.random.key(1)
    assert fitted.training_log_prob(KEY, x[0], CONTEXTS[0]) != fitted.training_log_prob(
        other, x[0], CONTEXTS[0]
    )
    quiet = fitted.without_noise().training_log_prob(other, x[0], CONTEXTS[0])
    np.testing.assert_array_equal(quiet, fitted.log_prob(x[0], CONTEXTS[0]))
    afflow.save(fitted, tmp_path / "model.zip")
    again = afflow.load(tmp_path / "model.zip")
    arguments = x[:3], CONTEXTS[0]
    np.testing.assert_array_equal(again.log_prob(*arguments), fitted.log_prob(*arguments))


def test_parts_that_do_not_fit_are_errors():
    model = make_upscaled()
    build, parts = afflow.models.DepthUpscaled, (model.high, model.low)
    wide = make_upscaled((1, 3)).high  # the context has two values, not three
    for arguments, match in [
        ((*parts, 9, 1), "multiple of 2"),
        ((*parts, 2, 1), "num_levels >= 4"),
        ((*parts, 8, 0), "low_bits >= 1"),
        ((model.high, make_upscaled((2, 1)).low, 8, 1), "low.event_shape"),
        ((wide, wide, 8, 1), "low.context_shape with 3 elements"),
    ]:
        with pytest.raises(ValueError, match=match):
            build(*arguments)
    with pytest.raises(ValueError, match="x.shape"):
        model.log_prob(jnp.zeros((3, 2, 2)), CONTEXTS[0])
