"""Continuous flows: exact linear solutions, traces, failures, and gradients by the adjoint."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

KEY = jax.random.key(4)
MATRIX = jnp.array([[0.3, -0.8], [0.5, 0.2]])
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


class LinearField(afflow.bijectors.VectorField):
    """The vector field `A x`. The exact flow is the matrix exponential of `A`."""

    event_shape, context_shape = (2,), None

    def __init__(self, matrix):
        self.matrix = nnx.Param(matrix)

    def __call__(self, t, x, context=None):
        return self.matrix[...] @ x


@pytest.fixture(scope="module")
def flow():
    """Return a small conditional `cnf` with random weights."""
    return randomize(afflow.cnf(2, hidden=(8,), context_dim=1, rngs=nnx.Rngs(0)))


def test_linear_field_is_the_matrix_exponential():
    x = jnp.array([1.0, -2.0])
    layer = afflow.bijectors.Continuous(LinearField(MATRIX), **TIGHT)
    y, log_det = jax.jit(layer.forward_and_log_det)(x)
    np.testing.assert_allclose(y, jax.scipy.linalg.expm(MATRIX) @ x, rtol=1e-7)
    np.testing.assert_allclose(log_det, jnp.trace(MATRIX), rtol=1e-7)


def test_gradient_by_the_default_adjoint():
    x = jnp.array([1.0, -2.0])

    def score(matrix):
        y, log_det = afflow.bijectors.Continuous(LinearField(matrix), **TIGHT).inverse_and_log_det(
            x
        )
        return jnp.sum(jnp.sin(y)) + log_det

    def expected(matrix):
        return jnp.sum(jnp.sin(jax.scipy.linalg.expm(-matrix) @ x)) - jnp.trace(matrix)

    np.testing.assert_allclose(
        jax.jit(jax.grad(score))(MATRIX), jax.grad(expected)(MATRIX), rtol=1e-6
    )


def test_hutchinson_is_fixed_and_unbiased():
    x = jnp.array([0.4, 0.1])

    @jax.jit
    @jax.vmap
    def log_det(key):
        layer = afflow.bijectors.Continuous(
            LinearField(MATRIX), afflow.bijectors.Hutchinson(2, key)
        )
        return layer.forward_and_log_det(x)[1]

    keys = jax.random.split(KEY, 400)
    estimates = log_det(keys)
    np.testing.assert_array_equal(estimates, log_det(keys))
    error = estimates.std() / 20
    assert error > 0.005
    assert abs(estimates.mean() - jnp.trace(MATRIX)) < 4 * error


def test_many_probes_come_near_the_trace():
    trace = afflow.bijectors.Hutchinson((2, 3), KEY, num_probes=5000)
    matrix = jax.random.normal(KEY, (6, 6))
    estimate = trace(lambda v: (matrix @ v.ravel()).reshape(2, 3), jnp.zeros((2, 3)))
    np.testing.assert_allclose(estimate, jnp.trace(matrix), atol=0.3)
    exact = afflow.bijectors.ExactTrace()(
        lambda v: (matrix @ v.ravel()).reshape(2, 3), jnp.zeros((2, 3))
    )
    np.testing.assert_allclose(exact, jnp.trace(matrix), rtol=1e-12)


def test_probes_are_not_trained():
    layer = afflow.bijectors.Continuous(LinearField(MATRIX), afflow.bijectors.Hutchinson(2, KEY))
    assert len(jax.tree.leaves(nnx.state(layer, nnx.Param))) == 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_short_last_step_is_no_failure(dtype):
    """Check intervals shorter than one rounding error, as the last step of a solver can be."""
    layer, x = afflow.bijectors.Continuous(LinearField(MATRIX.astype(dtype))), jnp.ones(2, dtype)
    for start, end in ((jnp.finfo(dtype).eps / 2, 0.0), (1.0 - jnp.finfo(dtype).eps / 2, 1.0)):
        y, log_det = layer._integrate(start, end, x, None)
        np.testing.assert_allclose(y, x, rtol=1e-6)
        assert np.isfinite(log_det)


def test_nan_and_failure_come_back_as_nan_alone(flow):
    context = jnp.ones(1)
    x = jnp.array([[0.1, 0.2], [jnp.nan, 0.2], [jnp.inf, 0.0]])
    log_prob = flow.log_prob(x, context)
    assert np.isnan(log_prob).tolist()[:2] == [False, True]
    np.testing.assert_allclose(log_prob[0], flow.log_prob(x[0], context), rtol=1e-9)
    hurried = afflow.bijectors.Continuous(LinearField(1e3 * MATRIX), max_steps=2)
    assert np.isnan(hurried.forward(jnp.ones(2))).all()


def test_round_trip_within_the_default_tolerances(flow):
    x, log_prob = flow.sample_and_log_prob(KEY, 20, jnp.ones(1))
    np.testing.assert_allclose(flow.log_prob(x, jnp.ones(1)), log_prob, atol=1e-3)


def test_fit_trains_it():
    noise = jax.random.normal(KEY, (256, 1), jnp.float32)
    rows = jnp.sign(noise) + 0.3 * noise
    flow = afflow.cnf(1, hidden=(4,), rtol=1e-3, atol=1e-3, data=rows, rngs=nnx.Rngs(0))
    standardized = (rows - rows.mean(0, keepdims=True)) / rows.std(0, keepdims=True)
    start = jax.scipy.stats.norm.logpdf(standardized).mean() - jnp.log(rows.std())
    np.testing.assert_allclose(flow.log_prob(rows).mean(), start, rtol=1e-5)
    _, history = afflow.fit(
        flow, rows, key=KEY, max_epochs=5, batch_size=64, learning_rate=0.05, progress=False
    )
    assert history.train[-1] < history.train[0] - 0.05


def test_missing_diffrax_says_how_to_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match=r"afflow\[cnf\]"):
        afflow.cnf(2, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("options", [{"dim": 0}, {"dim": 2, "context_dim": -1}])
def test_sizes_out_of_range(options):
    with pytest.raises(ValueError, match="(dim|context_dim) >= [01], got"):
        afflow.cnf(**options, rngs=nnx.Rngs(0))
