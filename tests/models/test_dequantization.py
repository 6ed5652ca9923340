"""Integers: noise stays in its cell, bounds hold, and bits per dimension are correct."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow
from afflow.models.dequantization import _fill

KEY = jax.random.key(2)


def unit_flow(base=afflow.Normal, **options) -> afflow.Flow:
    """Return a flow on the unit square that is close to its base."""
    made = afflow.MADE(2, 2, (8,), activation=jnp.tanh, rngs=nnx.Rngs(0), **options)
    layer = randomize(afflow.Inverse(afflow.MaskedAutoregressive(made, afflow.Affine())), 0.2)
    unit = afflow.bijectors.Interval(jnp.zeros(2), jnp.ones(2))
    return afflow.Flow(base(2), afflow.Chain([layer, unit]))


def model() -> afflow.models.VariationalDequantization:
    """Return a small model. Its logistic noise has the tails that importance weights need."""
    noise = unit_flow(afflow.distributions.Logistic, context_dim=2)
    return afflow.models.VariationalDequantization(unit_flow(), noise, levels=4)


def log_cells(flow, levels, fine=64):
    """Return the log-probability `(n, n)` of every pair of integers, by quadrature."""
    axis = (np.arange(levels * fine) + 0.5) / (levels * fine)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    density = np.exp(flow.log_prob(grid)).reshape(levels, fine, levels, fine)
    return np.log(density.mean((1, 3)))  # as densities on the unit square


@pytest.mark.parametrize("levels", [2, 5, 10, 49, 256, 1000])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_noise_stays_in_its_cell(levels, dtype):
    x = jnp.arange(levels)
    for u in (0.0, 0.3, 0.5, 1.0):
        y = _fill(x, jnp.full(levels, u, dtype), levels)
        assert y.dtype == dtype
        np.testing.assert_array_equal(afflow.models.quantize(y, levels), x)
        assert ((y >= 0) & (y < 1)).all()


def test_noise_is_uniform():
    y = afflow.dequantize(KEY, np.full((10_000, 2), 200, np.uint8))
    noise = np.asarray(y) * 256 - 200
    np.testing.assert_allclose(np.histogram(noise, 10, (0, 1))[0] / 2000, 1, atol=0.1)
    assert noise.std() == pytest.approx(12**-0.5, rel=0.02)


def test_logit_is_the_formula_of_the_paper():
    y = jnp.array([0.0, 0.2, 1.0])
    for alpha in (1e-6, 0.05):
        p = alpha + (1 - 2 * alpha) * y
        x, log_det = afflow.bijectors.Logit(3, alpha).inverse_and_log_det(y)
        np.testing.assert_allclose(x, jnp.log(p / (1 - p)), rtol=1e-9)
        expected = jnp.sum(jnp.log(1 - 2 * alpha) - jnp.log(p) - jnp.log(1 - p))
        np.testing.assert_allclose(log_det, expected, rtol=1e-9)
        x32, _ = afflow.bijectors.Logit(3, alpha).inverse_and_log_det(y.astype(jnp.float32))
        np.testing.assert_allclose(x32, x, atol=0.1)


def test_bits_of_uniform_and_of_certain_images():
    assert afflow.bits_per_dim(jnp.zeros(3), (28, 28)).tolist() == [8, 8, 8]
    certain = 12 * jnp.log(32.0)  # all the mass in one cell of 12 coordinates
    assert afflow.bits_per_dim(certain, 12, levels=32).item() == pytest.approx(0, abs=1e-12)


def test_bound_is_below_and_closes():
    bound = model()
    exact = log_cells(bound.flow, 4)
    assert np.exp(exact).mean() == pytest.approx(1, abs=1e-3)
    x = np.stack(np.meshgrid(*[np.arange(4)] * 2, indexing="ij"), -1).astype(np.uint8)
    keys = jax.random.split(KEY, 500)
    elbo = np.stack([bound.log_prob(key, x) for key in keys[:50]]).mean(0)
    assert elbo.shape == (4, 4)
    assert elbo.mean() < exact.mean() - 0.01
    tight = bound.log_prob(KEY, x, 5000)
    np.testing.assert_allclose(tight, exact, atol=0.1)


def test_noise_learns():
    """Check that gradient descent on the noise alone raises the bound."""
    bound, x = model(), jnp.array([[0, 3], [2, 1]])
    graph, params, rest = nnx.split(bound.noise, nnx.Param, ...)

    @jax.jit
    @jax.value_and_grad
    def loss(params, key):
        noise = nnx.merge(graph, params, rest)
        model = afflow.models.VariationalDequantization(bound.flow, noise, levels=4)
        return -model.log_prob(key, x, 1).mean()

    def evaluate(params):
        return np.mean([loss(params, key)[0] for key in jax.random.split(jax.random.key(9), 300)])

    trained = params
    for key in jax.random.split(KEY, 300):
        grads = loss(trained, key)[1]
        trained = jax.tree.map(lambda a, g: a - 0.03 * g, trained, grads)
    assert evaluate(trained) < evaluate(params) - 0.02


def test_keys_decide():
    bound, x = model(), jnp.array([1, 2])
    assert bound.log_prob(KEY, x) == bound.log_prob(KEY, x)
    assert bound.log_prob(KEY, x) != bound.log_prob(jax.random.key(8), x)
    grads = jax.grad(lambda m: m.log_prob(KEY, x))(bound)
    for grad in jax.tree.leaves(grads):
        assert np.isfinite(grad).all()


ERRORS = {
    "floats": (lambda: afflow.dequantize(KEY, jnp.ones(2)), "integers from 0 to 255"),
    "a wide margin": (lambda: afflow.bijectors.Logit(2, 0.5), "alpha < 0.5"),
    "noise without a context": (
        lambda: afflow.models.VariationalDequantization(unit_flow(), unit_flow()),
        "noise.context_shape",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_a_fraction_is_no_whole_number():
    flow = afflow.Flow(afflow.Uniform(2, 0.0, 4.0), afflow.Reverse(2))
    half = afflow.models.Dequantized(flow, [True, False])
    found = half.log_prob(jnp.array([[1.5, 1.5], [1.0, 1.5], [jnp.nan, 1.0], [jnp.inf, 1.0]]))
    np.testing.assert_allclose(found, [-np.inf, -2 * np.log(4), np.nan, -np.inf], rtol=1e-6)


@pytest.mark.parametrize("x", [[4, 0], [-1, 0], [0.5, 0.0]])
def test_learned_noise_refuses_what_are_no_levels(x):
    with pytest.raises(ValueError, match="Expected integers from 0 to 3"):
        model().log_prob(KEY, jnp.array(x))
    with pytest.raises(ValueError, match="num_samples"):
        model().log_prob(KEY, jnp.array([0, 1]), num_samples=0)
