"""The discrete variational autoencoder: its bound by enumeration, its gradient, its shapes."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import cast, randomize

import afflow
from afflow.models.discrete_vae import relax

KEY = jax.random.key(0)
BINARY = afflow.conditionals.Bernoulli()
IMAGES = np.array(list(itertools.product(range(2), repeat=4))).reshape(-1, 2, 2)  # all of them


class Linear(nnx.Module):
    """A linear map between arrays of two shapes."""

    def __init__(self, inputs, outputs, seed):
        rng = np.random.default_rng(seed)
        self.outputs = outputs
        self.weights = nnx.Param(jnp.asarray(rng.normal(size=(*inputs, *outputs))))

    def __call__(self, x):
        return jnp.tensordot(x, self.weights[...].astype(x.dtype), x.ndim)


@cache
def tiny(**options):
    """Return a model of binary images `(2, 2)` with two codes, each one of three."""
    networks = Linear((2, 2, 1), (1, 2, 3), 0), Linear((1, 2, 3), (2, 2, 1), 1)
    return afflow.models.DiscreteVAE(*networks, BINARY, (2, 2), **options)


def enumerate_terms(model, x):
    """Return `log p(x, z)` and `log q(z | x)` of one image for all codes, by NumPy."""
    logits = np.tensordot(x[..., None], model.encoder.weights[...], 3)
    log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    joint, posterior = [], []
    for codes in itertools.product(range(3), repeat=2):
        y = np.eye(3)[list(codes)][None]  # (1, 2, 3)
        params = np.tensordot(y, model.decoder.weights[...], 3)[..., 0]
        p = 1 / (1 + np.exp(-params))
        log_p = np.log(np.where(x == 1, p, 1 - p)).sum()
        joint.append(log_p - 2 * np.log(3))
        posterior.append((y * log_q).sum())
    return np.array(joint), np.array(posterior)


def test_the_bound_is_below_the_log_probability():
    """The mean of single draws is the bound over all codes, within 5 standard errors."""
    model, num = tiny(), 4000
    draws = model.elbo(KEY, np.repeat(IMAGES[None], num, 0))  # (num, 16)
    gaps = []
    for x, found in zip(IMAGES, np.asarray(draws).T, strict=True):
        joint, posterior = enumerate_terms(model, x)
        bound = (np.exp(posterior) * (joint - posterior)).sum()
        gaps.append(np.log(np.exp(joint).sum()) - bound)
        assert abs(found.mean() - bound) < 5 * found.std() / np.sqrt(num)
    assert min(gaps) > 0.01


def test_importance_weights_average_to_the_probability():
    model, num = tiny(), 4000
    weights = np.exp(model.elbo(KEY, np.repeat(IMAGES[None], num, 0)))
    exact = np.array([np.exp(enumerate_terms(model, x)[0]).sum() for x in IMAGES])
    assert (abs(weights.mean(0) - exact) < 5 * weights.std(0) / np.sqrt(num)).all()
    np.testing.assert_allclose(exact.sum(), 1, rtol=1e-12)
    many = np.exp(model.elbo(KEY, IMAGES, num))
    assert (abs(many - exact) < 5 * weights.std(0) / np.sqrt(num)).all()
    fixed = model.log_prob(IMAGES)
    np.testing.assert_array_equal(fixed, model.log_prob(IMAGES))
    assert (abs(np.exp(fixed) - exact) < 5 * weights.std(0) / 4).all()


def test_samples_have_uniform_codes():
    model, num = tiny(), 4000
    drawn = np.asarray(model.sample(KEY, num)).reshape(num, 4) @ [8, 4, 2, 1]
    share = np.bincount(drawn, minlength=16) / num
    exact = np.array([np.exp(enumerate_terms(model, x)[0]).sum() for x in IMAGES])
    assert (abs(share - exact) < 5 * np.sqrt(exact * (1 - exact) / num)).all()


def relaxed_by_hand(model, key, x):
    """Return the training objective of one image from its formula, by NumPy."""
    logits = np.tensordot(x[..., None], model.encoder.weights[...], 3)
    key = jax.random.split(key, 1)[0]  # of the first event of a call
    y = (logits + np.asarray(jax.random.gumbel(key, logits.shape))) / model.temperature[...]
    y = np.exp(y) / np.exp(y).sum(-1, keepdims=True)
    if model.straight_through:
        y = np.eye(3)[y.argmax(-1)]
    params = np.tensordot(y, model.decoder.weights[...], 3)[..., 0]
    q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    divergence = (q * np.log(3 * q)).sum()
    return -np.log1p(np.exp(np.where(x == 1, -params, params))).sum() - (
        model.kl_weight[...] * divergence
    )


@pytest.mark.parametrize("straight_through", [False, True])
def test_the_training_objective_is_its_formula(straight_through):
    model = tiny(straight_through=straight_through).with_temperature(0.7).with_kl_weight(0.3)
    found = model.training_log_prob(KEY, IMAGES[6])
    np.testing.assert_allclose(found, relaxed_by_hand(model, KEY, IMAGES[6]), rtol=1e-9)
    assert tiny(straight_through=straight_through).temperature[...] == 1  # unchanged


def test_the_gradient_is_the_slope_with_fixed_noise():
    model = tiny().with_temperature(0.7).with_kl_weight(0.3)
    start = np.asarray(model.encoder.weights[...])

    def objective(weights):
        other = jax.tree.map(lambda leaf: leaf, model)
        other.encoder.weights[...] = weights
        return other.training_log_prob(KEY, IMAGES[6])

    gradient = jax.grad(objective)(jnp.asarray(start))
    direction = np.random.default_rng(0).normal(size=start.shape)
    ends = [objective(start + h * direction) for h in (1e-5, -1e-5)]
    np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-7)
    assert abs(ends[0] - ends[1]) > 1e-7


def test_the_straight_gradient_is_the_gradient_by_the_relaxed_code():
    """Its encoder gets the slope of the decoder at a symbol, through the relaxed code."""
    model = tiny(straight_through=True).with_temperature(0.7).with_kl_weight(0.0)
    x, decoder = IMAGES[6], model.decoder.weights[...]
    logits = model.compute_logits(x)
    noise = jax.random.gumbel(jax.random.split(KEY, 1)[0], logits.shape)
    soft, pull = jax.vjp(lambda logits: relax(logits, noise, jnp.asarray(0.7)), logits)
    hard = jax.nn.one_hot(jnp.argmax(soft, -1), 3)
    p = jax.nn.sigmoid(jnp.tensordot(hard, decoder, 3)[..., 0])
    (expected,) = pull(jnp.tensordot(decoder[..., 0], x - p, 2))
    gradient = jax.grad(lambda model: model.training_log_prob(KEY, x))(model)
    found = gradient.encoder.weights[...]
    outer = jnp.asarray(x, float)[..., None, None, None, None] * expected[None, None, None]
    np.testing.assert_allclose(found, outer, rtol=1e-9)
    assert jnp.abs(found).max() > 1e-3


@cache
def colour(dtype):
    """Return a model of images `(4, 8, 2)` of four levels."""
    levels = afflow.conditionals.DiscretizedLogistics(2, 4)
    sizes = {"num_codes": 5, "conditional": levels, "channels": (4, 6)}
    model = randomize(afflow.zoo.discrete_vae((4, 8, 2), **sizes, rngs=nnx.Rngs(0)), 0.3)
    return cast(model, dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_batches_are_images_one_by_one(dtype):
    model = colour(dtype)
    x = np.random.default_rng(0).integers(0, 4, (2, 3, 4, 8, 2))
    codes = model.encode(x)
    assert codes.shape == (2, 3, 1, 2)
    assert jnp.issubdtype(codes.dtype, jnp.integer)
    assert len(np.unique(codes)) > 1
    assert ((codes >= 0) & (codes < 5)).all()
    np.testing.assert_array_equal(codes[1, 2], model.encode(x[1, 2]))
    image = model.decode(codes)
    assert image.shape == x.shape
    np.testing.assert_array_equal(image[1, 2], model.decode(codes[1, 2]))
    drawn = model.decode(codes, KEY)
    assert (drawn != image).any()
    assert ((drawn >= 0) & (drawn < 4)).all()
    median = model.decode_median(codes)
    many, one = model.decode(jnp.broadcast_to(codes[1, 2], (4000, 1, 2)), KEY), median[None, 1, 2]
    assert ((many <= one).mean(0) > 0.46).all()
    assert ((many >= one).mean(0) > 0.46).all()  # 5 standard errors below one half
    assert (median != image).any()
    bound = model.elbo(KEY, x)
    assert bound.shape == (2, 3)
    assert bound.dtype == model.training_log_prob(KEY, x).dtype
    assert model.elbo(KEY, x.astype(dtype)).dtype == dtype
    assert model.sample(KEY, (2, 1)).shape == (2, 1, 4, 8, 2)
    with pytest.raises(ValueError, match="Expected no context"):
        model.sample(KEY, 2, jnp.zeros(2))


def test_a_nan_stays_a_nan():
    model = colour(jnp.float64)
    x = np.zeros((2, 4, 8, 2))
    x[1, 0, 0, 0] = np.nan
    for found in (model.elbo(KEY, x, 2), model.log_prob(x), model.training_log_prob(KEY, x)):
        np.testing.assert_array_equal(np.isnan(found), [False, True])
    assert jnp.isneginf(model.log_prob(np.full((4, 8, 2), np.inf)))


def test_a_few_images_are_learned(tmp_path):
    """With one code for each of four images, the bound comes near the probability 1/4."""
    x = np.random.default_rng(1).integers(0, 2, (4, 4, 4))
    rows = np.tile(x, (16, 1, 1))
    model = afflow.zoo.discrete_vae((4, 4), num_codes=4, channels=(8, 16), rngs=nnx.Rngs(0))
    options = {"key": KEY, "validation": 0.0, "batch_size": 16, "progress": False}
    options |= {"max_epochs": 100, "learning_rate": 0.01}
    for temperature in (1.0, 0.5):
        model, _ = afflow.fit(model.with_temperature(temperature), rows, **options)
    assert np.min(model.log_prob(x)) > np.log(1 / 4) - 1  # 16 log 2 is 11.1
    np.testing.assert_array_equal(model.decode(model.encode(x)), x)
    afflow.save(model, tmp_path / "model.zip")
    again = afflow.load(tmp_path / "model.zip")
    np.testing.assert_array_equal(again.log_prob(x), model.log_prob(x))
    assert again.temperature[...] == 0.5


def test_an_upsampler_fills_each_square_from_its_place():
    """With kernels that see one place, the squares follow the places of the grid."""
    network = randomize(afflow.nets.Upsampler((2, 2, 3), 1, (4,), num_blocks=0, rngs=nnx.Rngs(0)))
    kernel = network.doublings[0].kernel
    kernel[...] = kernel[...] * jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1)
    z = jnp.zeros((2, 2, 3)).at[0, 1, 2].set(1.0)
    changed = network(z)[..., 0] != network(jnp.zeros((2, 2, 3)))[..., 0]
    expected = np.zeros((4, 4), bool)
    expected[:2, 2:] = True
    np.testing.assert_array_equal(changed, expected)


def test_networks_that_do_not_fit_are_errors():
    encoder, decoder = Linear((2, 2, 1), (1, 2, 3), 0), Linear((1, 2, 3), (2, 2, 1), 1)
    make = afflow.models.DiscreteVAE
    with pytest.raises(ValueError, match=r"outputs \(2, 2, 3\)"):
        make(encoder, decoder, afflow.conditionals.MixtureOf(1), (2, 2))
    with pytest.raises(ValueError, match=r"logits \(h, w, K\)"):
        make(Linear((2, 2, 1), (1, 3), 0), decoder, BINARY, (2, 2))
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, C\)"):
        make(encoder, decoder, BINARY, (4,))
    with pytest.raises(ValueError, match="temperature"):
        make(encoder, decoder, BINARY, (2, 2), temperature=0.0)
    with pytest.raises(ValueError, match="kl_weight"):
        tiny().with_kl_weight(-1.0)
    with pytest.raises(ValueError, match="integer type"):
        tiny().decode(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="codes.shape"):
        tiny().decode(np.zeros((2, 1), int))
    with pytest.raises(ValueError, match="multiples of 4"):
        afflow.zoo.discrete_vae((6, 8), rngs=nnx.Rngs(0))
