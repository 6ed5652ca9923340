"""What single univariates promise beyond the properties that all bijectors share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from registry import made
from scipy import stats
from scipy.special import logit

import afflow
from afflow.univariate.monotone import solve_monotone

UNIVARIATES = {
    "logistic mixture": lambda: afflow.MixtureCDF(3),
    "gaussian mixture": lambda: afflow.MixtureCDF(3, afflow.GaussianCDF()),
    "ddsf": lambda: afflow.Sigmoidal((3, 2)),
    "bernstein": lambda: afflow.BernsteinPolynomial(5),
    "sum of squares": lambda: afflow.SumOfSquares(2, 3),
    "umnn": lambda: afflow.UMNN(2, (4,), rngs=nnx.Rngs(0)),
}
FAR = np.concatenate([-np.logspace(6, -6, 41), [0.0], np.logspace(-6, 6, 41)])


def params(univariate, scale, dtype=jnp.float64, seed=0):
    shape = univariate.context_shape
    return jnp.asarray(np.random.default_rng(seed).normal(0, scale, shape), dtype)


@pytest.mark.parametrize("name", UNIVARIATES)
def test_zeros_are_the_identity(name):
    univariate = UNIVARIATES[name]()
    x = jnp.concatenate([jnp.asarray(FAR), jnp.linspace(-7, 7, 29)])
    zeros = jnp.zeros(univariate.context_shape)
    z, log_det = jax.jit(jax.vmap(univariate.inverse_and_log_det, (0, None)))(x, zeros)
    np.testing.assert_allclose(z, x, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(log_det, 0, atol=1e-12)


@pytest.mark.parametrize("name", UNIVARIATES)
def test_parameters_have_gradients_of_their_own_at_zero(name):
    """Else components that start equal would stay equal in training."""
    univariate = UNIVARIATES[name]()
    x = jnp.linspace(-3, 4, 30)

    def loss(p):
        z, log_dets = jax.vmap(univariate.inverse_and_log_det, (0, None))(x, p)
        return jnp.sum(jnp.square(z) / 2 - log_dets)

    p = jnp.zeros(univariate.context_shape)
    gradient = jax.jit(jax.grad(loss))
    for _ in range(3):
        p -= 1e-2 * jnp.sign(gradient(p))  # equal steps for all, as of Adam
    g = np.asarray(gradient(p))
    gaps = np.abs(g[:, None] - g) / (np.abs(g[:, None]) + np.abs(g)) + np.eye(len(g))
    assert gaps.min() > 1e-4


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=str)
@pytest.mark.parametrize("name", UNIVARIATES)
def test_finite_gradients_from_near_to_far(name, dtype):
    univariate = jax.tree.map(lambda a: a.astype(dtype), UNIVARIATES[name]())

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def score(x, p):
        z, log_det = univariate.inverse_and_log_det(x, p)
        return z + log_det, (z, log_det)

    for scale in (0.0, 1.0, 30.0):
        p = params(univariate, scale, dtype)
        out = score(jnp.asarray(FAR, dtype), p)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
        z = out[0][1][0]
        assert (np.diff(z) >= 0).all()


@pytest.mark.parametrize("name", UNIVARIATES)
def test_nan_stays_nan(name):
    univariate = UNIVARIATES[name]()
    for method in (univariate.forward_and_log_det, univariate.inverse_and_log_det):
        run = jax.jit(method)
        p = params(univariate, 0.1)
        assert np.isnan(run(jnp.array(jnp.nan), p)[0])
        assert np.isnan(run(jnp.array(0.5), jnp.full_like(p, jnp.nan))).all()


@pytest.mark.parametrize(
    ("component", "distribution"),
    [(afflow.LogisticCDF(), stats.logistic), (afflow.GaussianCDF(), stats.norm)],
    ids=["logistic", "gaussian"],
)
def test_mixture_cdf_gives_the_density_of_the_mixture(component, distribution):
    univariate = afflow.MixtureCDF(3, component)
    p = params(univariate, 1.0)
    logits, mu, s = np.split(np.asarray(p), 3)
    gain = 4 ** np.array([-2 / 3, 0.0, 2 / 3])
    mu, s = gain * mu, gain * s
    scale = np.exp(s / (1 + np.abs(s) / 7))
    pi = np.exp(logits) / np.exp(logits).sum()
    y = np.linspace(-9, 9, 301)
    z, log_det = jax.jit(jax.vmap(univariate.inverse_and_log_det, (0, None)))(jnp.asarray(y), p)
    density = (pi * distribution.pdf(y[:, None], mu, scale)).sum(1)
    np.testing.assert_allclose(distribution.logpdf(z) + log_det, np.log(density), rtol=1e-9)
    tail = (pi * distribution.sf(y[:, None], mu, scale)).sum(1)
    np.testing.assert_allclose(z, distribution.isf(tail), rtol=1e-9, atol=1e-12)


def test_normal_tails_and_their_slopes_are_accurate():
    u = jnp.asarray(np.concatenate([np.linspace(-8, 40, 400), [9.999999, 10.000001, 1e4]]))
    log_s, log_hazard = jax.jit(afflow.GaussianCDF().log_tail)(u)
    np.testing.assert_allclose(log_s, stats.norm.logsf(u), rtol=1e-13, atol=2e-16)
    slopes = jax.jit(jax.vmap(jax.grad(lambda u: afflow.GaussianCDF().log_tail(u)[0])))(u)
    np.testing.assert_allclose(slopes, -jnp.exp(log_hazard), rtol=1e-12)
    back = jax.jit(jax.vmap(afflow.GaussianCDF().quantile))(log_s)
    np.testing.assert_allclose(back[u > 0], u[u > 0], rtol=1e-12)
    assert not np.isnan(back).any()


def test_one_hidden_layer_of_sigmoids_is_the_formula_of_the_paper():
    univariate = afflow.Sigmoidal((3,))
    p = params(univariate, 0.5)
    gain = 4 ** np.array([-2 / 3, 0.0, 2 / 3])
    s, b, free = gain * p[:3], gain * p[3:6], np.r_[0.0, p[6:]]
    a, w = np.exp(s / (1 + np.abs(s) / 7)), np.exp(free) / np.exp(free).sum()
    expected = logit((w / (1 + np.exp(-(a * 0.7 + b)))).sum())
    np.testing.assert_allclose(univariate.inverse(jnp.array(0.7), p), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["sum of squares", "umnn"])
def test_integrals_have_the_integrand_as_slope(name):
    univariate = UNIVARIATES[name]()
    p = params(univariate, 0.3)
    if name == "umnn":
        slope = univariate._f(jnp.array(1.3), p[1:])
    else:
        gain = np.array([0.5, 2.0])[:, None]
        added = gain * np.asarray(p[1:]).reshape(2, 4)
        a = np.eye(1, 4) / np.sqrt(2) + added / (1 + np.abs(added) / 5)
        slope = 1e-3 + 0.999 * np.square(a @ (1.3 / 5) ** np.arange(4)).sum()
    _, log_det = univariate.inverse_and_log_det(jnp.array(1.3), p)
    np.testing.assert_allclose(log_det, np.log(slope), atol=1e-7)
    np.testing.assert_allclose(univariate.inverse(jnp.array(0.0), p), p[0], rtol=1e-12)


def test_bernstein_interpolates_its_ends():
    univariate = afflow.BernsteinPolynomial(4, bound=2.0)
    p = jnp.array([0.5, 0.1, -0.2, 0.3, 0.4])
    width = np.exp(p[1:] / (1 + np.abs(p[1:]) / 7)).sum()
    z = jax.vmap(univariate.inverse, (0, None))(jnp.array([-2.0, 2.0]), p)
    np.testing.assert_allclose(z, 0.5 + np.array([-width, width]) / 2, rtol=1e-12)


def cubic(x, params):
    scale, shift = params
    return scale * (x**3 + x) + shift, jnp.log(scale * (3 * x**2 + 1))


@pytest.mark.parametrize(("dtype", "tol"), [(jnp.float64, 1e-14), (jnp.float32, 1e-6)])
def test_solve_monotone_reaches_rounding(dtype, tol):
    x = jnp.asarray(FAR[np.abs(FAR) <= 1e4], dtype)
    values = jnp.asarray(2.0, dtype), jnp.asarray(-1e-3, dtype)
    z, _ = cubic(x, values)
    found = jax.jit(jax.vmap(partial(solve_monotone, Partial(cubic)), (0, None)))(z, values)
    assert found.dtype == dtype
    np.testing.assert_array_less(np.abs(found - x) / (1e-3 + np.abs(x)), 10 * tol * 1e3)
    np.testing.assert_allclose(cubic(found, values)[0], z, rtol=20 * tol, atol=1e-2 * tol)


def test_solve_monotone_survives_steps_that_underflow():
    """Newton's method alone fails on this one from both sides."""

    def steep(x, params):
        return jnp.tanh(50 * x) + 1e-6 * x, jnp.log(50 / jnp.cosh(50 * x) ** 2 + 1e-6)

    x = jnp.array([-1e4, -3.0, -1e-3, 0.0, 1e-9, 0.1, 2.0, 1e3])
    z, _ = steep(x, None)
    found = jax.jit(jax.vmap(lambda z: solve_monotone(Partial(steep), z, None)))(z)
    np.testing.assert_allclose(steep(found, None)[0], z, rtol=1e-12, atol=1e-15)
    assert np.isnan(solve_monotone(Partial(steep), jnp.array(jnp.nan), None))


def test_solve_monotone_differentiates_both_ways():
    values = jnp.array(2.0), jnp.array(0.3)

    def root(z, values):
        return solve_monotone(Partial(cubic), z, values)

    x = root(jnp.array(5.0), values)
    slope = 2 * (3 * x**2 + 1)
    expected = 1 / slope, (-(x**3 + x) / slope, -1 / slope)
    for jacobian in (jax.jacfwd, jax.jacrev):
        found = jax.jit(jacobian(root, argnums=(0, 1)))(jnp.array(5.0), values)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    second = jax.jit(jax.hessian(root))(jnp.array(5.0), values)
    np.testing.assert_allclose(second, -12 * x / slope**3, rtol=1e-12)


@pytest.mark.parametrize("solver", [afflow.Incremental(), afflow.Sequential(), afflow.Jacobi()])
def test_per_dimension_is_the_composition_by_hand(solver):
    affine, bernstein = afflow.Affine(), afflow.BernsteinPolynomial(3)
    univariates = [affine, bernstein, affine]
    conditioner = made(3, 4, (5,), context_dim=1)
    layer = afflow.MaskedAutoregressive(conditioner, afflow.PerDimension(univariates), solver)
    z, context = jnp.array([0.3, -1.0, 2.0]), jnp.ones(1)
    x, log_det = jax.jit(layer.forward_and_log_det)(z, context)
    rows = conditioner(x, context)
    parts = [
        univariate.forward_and_log_det(z_t, row[: univariate.context_shape[0]])
        for univariate, z_t, row in zip(univariates, z, rows, strict=True)
    ]
    np.testing.assert_allclose(x, [part[0] for part in parts], rtol=1e-12)
    np.testing.assert_allclose(log_det, sum(part[1] for part in parts), rtol=1e-12)
    np.testing.assert_allclose(layer.inverse(x, context), z, rtol=1e-11)


def test_per_dimension_shares_what_is_one_object():
    umnn = afflow.UMNN(2, (3,), rngs=nnx.Rngs(0))
    univariate = afflow.PerDimension([umnn, afflow.Affine(), umnn])
    assert len(jax.tree.leaves(univariate)) == len(jax.tree.leaves(umnn))
    with pytest.raises(ValueError, match=r"each coordinate of \(2,\), got 3"):
        afflow.Elementwise(univariate, 2)
    with pytest.raises(ValueError, match="at least one"):
        afflow.PerDimension([])
    with pytest.raises(ValueError, match="Expected a univariate"):
        afflow.PerDimension([afflow.Reverse(2)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: afflow.MixtureCDF(0),
        lambda: afflow.Sigmoidal(()),
        lambda: afflow.BernsteinPolynomial(0),
        lambda: afflow.SumOfSquares(min_slope=0.0),
        lambda: afflow.UMNN(hidden=(), rngs=nnx.Rngs(0)),
    ],
)
def test_sizes_out_of_range(make):
    with pytest.raises(ValueError, match="Expected"):
        make()


@pytest.mark.parametrize("make", [*UNIVARIATES.values(), afflow.Affine, afflow.Additive])
def test_batches_are_refused(make):
    univariate = make()
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        univariate.forward(jnp.zeros(3), jnp.zeros(univariate.context_shape))
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        univariate.inverse(jnp.zeros(3), jnp.zeros(univariate.context_shape))
