"""Properties of single univariates beyond the shared tests."""

from functools import partial

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from registry import made
from scipy import stats
from scipy.special import logit

import afflow
from afflow.univariates.mixture_cdf import mixture_parameters, surround
from afflow.univariates.monotone import Start, solve_monotone

UNIVARIATES = {
    "logistic mixture": lambda spread=0.5: afflow.univariates.MixtureCDF(3, spread=spread),
    "gaussian mixture": lambda spread=0.5: afflow.univariates.MixtureCDF(
        3, afflow.univariates.GaussianCDF(), spread=spread
    ),
    "ddsf": lambda spread=0.5: afflow.univariates.Sigmoidal((3, 2), spread=spread),
    "linear spline": lambda: afflow.univariates.LinearSpline(5),
    "quadratic spline": lambda: afflow.univariates.QuadraticSpline(5),
    "cubic spline": lambda: afflow.univariates.CubicSpline(5),
    "bernstein": lambda: afflow.univariates.BernsteinPolynomial(5),
    "sum of squares": lambda: afflow.univariates.SumOfSquares(2, 3),
    "umnn": lambda: afflow.univariates.UMNN(2, (4,), rngs=nnx.Rngs(0)),
}

OTHERS = {
    "affine": afflow.Affine,
    "additive": afflow.univariates.Additive,
    "spline": afflow.RationalQuadraticSpline,
    "circular": afflow.univariates.CircularSpline,
    "laplace mixture": lambda: afflow.univariates.MixtureCDF(3, afflow.univariates.LaplaceCDF()),
    "heavy tails": afflow.univariates.HeavyTails,
}


def rngs():
    return nnx.Rngs(0)


APART = "logistic mixture", "gaussian mixture", "ddsf"
FAR = np.concatenate([-np.logspace(6, -6, 41), [0.0], np.logspace(-6, 6, 41)])


def params(univariate, scale, dtype=jnp.float64, seed=0):
    """Return random parameters of a univariate."""
    shape = univariate.context_shape
    return jnp.asarray(np.random.default_rng(seed).normal(0, scale, shape), dtype)


@pytest.mark.parametrize("name", UNIVARIATES)
def test_zeros_are_the_identity(name):
    univariate = UNIVARIATES[name](*[0.0][: name in APART])
    x = jnp.concatenate([jnp.asarray(FAR), jnp.linspace(-7, 7, 29)])
    zeros = jnp.zeros(univariate.context_shape)
    z, log_det = jax.jit(jax.vmap(univariate.inverse_and_log_det, (0, None)))(x, zeros)
    np.testing.assert_allclose(z, x, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(log_det, 0, atol=1e-12)


@pytest.mark.parametrize("num", [1, 2, 3, 8, 30])
@pytest.mark.parametrize(
    "component", [afflow.univariates.LogisticCDF(), afflow.univariates.GaussianCDF()], ids=str
)
def test_components_that_start_apart_stay_close_to_the_identity(component, num):
    for univariate in (
        afflow.univariates.MixtureCDF(num, component),
        afflow.univariates.Sigmoidal((num,)),
    ):
        x = jnp.linspace(-3, 3, 61) * component.deviation
        p = jnp.zeros(univariate.context_shape)
        z, log_det = jax.jit(jax.vmap(univariate.inverse_and_log_det, (0, None)))(x, p)
        np.testing.assert_allclose(z, x, atol=0.2 * component.deviation * (num > 1) + 1e-6)
        assert np.abs(log_det).max() <= 0.4 * (num > 1) + 1e-6


@pytest.mark.parametrize(
    ("make", "truth"),
    [
        (
            lambda x: afflow.maf(
                1, univariate=lambda: afflow.univariates.MixtureCDF(4), data=x, rngs=rngs()
            ),
            0.88,
        ),
        (lambda x: afflow.naf(1, data=x, num_layers=1, rngs=rngs()), 0.88),
        (lambda x: afflow.rnade(1, rngs=rngs()), 0.88),
        (lambda x: afflow.zoo.gaussianization_flow(1, num_layers=1, data=x, rngs=rngs()), 0.88),
    ],
    ids=["logistic", "naf", "rnade", "gaussianization"],
)
def test_two_narrow_modes_are_found(make, truth):
    """Check a fit to two modes. Equal initial components end at one Gaussian, at -1.42 nats."""
    rng = np.random.default_rng(0)
    x = (rng.choice([-1, 1], 4000) + 0.05 * rng.normal(size=4000))[:, None].astype(np.float32)
    with jax.enable_x64(False):
        options = {"max_epochs": 60, "batch_size": 400, "learning_rate": 2e-2, "progress": False}
        model, _ = afflow.fit(make(x), x, key=jax.random.key(0), **options)
        assert model.log_prob(x).mean() > truth - 0.1


@pytest.mark.parametrize("name", UNIVARIATES)
def test_parameters_have_gradients_of_their_own_at_zero(name):
    """Check that gradients differ, since components with equal gradients would stay equal."""
    univariate = UNIVARIATES[name]()
    x = jnp.linspace(-3, 4, 30)

    def loss(p):
        z, log_dets = jax.vmap(univariate.inverse_and_log_det, (0, None))(x, p)
        return jnp.sum(jnp.square(z) / 2 - log_dets)

    p = jnp.zeros(univariate.context_shape)
    gradient = jax.jit(jax.grad(loss))
    for _ in range(3):
        p -= 1e-2 * jnp.sign(gradient(p))  # steps of equal size, as in Adam
    g = np.asarray(gradient(p))
    gaps = np.abs(g[:, None] - g) / (np.abs(g[:, None]) + np.abs(g)) + np.eye(len(g))
    assert gaps.min() > 1e-4


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=str)
@pytest.mark.parametrize("name", [*UNIVARIATES, *OTHERS])
def test_finite_gradients_from_near_to_far(name, dtype):
    """Check values up to 3e34 in float32 and 6e277 in float64, and no NaN at the float's end."""
    univariate = jax.tree.map(lambda a: a.astype(dtype), (UNIVARIATES | OTHERS)[name]())
    top = float(jnp.finfo(dtype).max)
    out = top ** np.array([0.45, 0.52, 0.8, 0.9])
    x = jnp.asarray(np.concatenate([-out[::-1], FAR, out]), dtype)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def score(x, p):
        z, log_det = univariate.inverse_and_log_det(x, p)
        return z + log_det, (z, log_det)

    for scale in (0.0, 1.0, 30.0):
        p = params(univariate, scale, dtype)
        out = score(x, p)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(out))
        z = out[0][1][0]
        assert (np.diff(z) >= 0).all() or name == "circular"
        ends = score(jnp.asarray([-top, top], dtype), p)[0]
        assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(ends))


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
    [
        (afflow.univariates.LogisticCDF(), stats.logistic),
        (afflow.univariates.GaussianCDF(), stats.norm),
    ],
    ids=["logistic", "gaussian"],
)
def test_mixture_cdf_gives_the_density_of_the_mixture(component, distribution):
    univariate = afflow.univariates.MixtureCDF(3, component, spread=0.0)
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
    log_s, log_hazard = jax.jit(afflow.univariates.GaussianCDF().log_tail)(u)
    np.testing.assert_allclose(log_s, stats.norm.logsf(u), rtol=1e-13, atol=2e-16)
    slopes = jax.jit(jax.vmap(jax.grad(lambda u: afflow.univariates.GaussianCDF().log_tail(u)[0])))(
        u
    )
    np.testing.assert_allclose(slopes, -jnp.exp(log_hazard), rtol=1e-12)
    back = jax.jit(jax.vmap(afflow.univariates.GaussianCDF().quantile))(log_s)
    np.testing.assert_allclose(back[u > 0], u[u > 0], rtol=1e-12)
    assert not np.isnan(back).any()


def test_one_hidden_layer_of_sigmoids_is_the_formula_of_the_paper():
    univariate = afflow.univariates.Sigmoidal((3,), spread=0.0)
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
    univariate = afflow.univariates.BernsteinPolynomial(4, bound=2.0)
    p = jnp.array([0.5, 0.1, -0.2, 0.3, 0.4])
    width = np.exp(p[1:] / (1 + np.abs(p[1:]) / 7)).sum()
    z = jax.vmap(univariate.inverse, (0, None))(jnp.array([-2.0, 2.0]), p)
    np.testing.assert_allclose(z, 0.5 + np.array([-width, width]) / 2, rtol=1e-12)


def cubic(x, params):
    """Return an increasing cubic function of `x` and its log-slope."""
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
    """Check a steep function where Newton's method without a bracket fails from both sides."""

    def steep(x, params):
        return jnp.tanh(50 * x) + 1e-6 * x, jnp.log(50 / jnp.cosh(50 * x) ** 2 + 1e-6)

    x = jnp.array([-1e4, -3.0, -1e-3, 0.0, 1e-9, 0.1, 2.0, 1e3])
    z, _ = steep(x, None)
    found = jax.jit(jax.vmap(lambda z: solve_monotone(Partial(steep), z, None)))(z)
    np.testing.assert_allclose(steep(found, None)[0], z, rtol=1e-12, atol=1e-15)
    assert np.isnan(solve_monotone(Partial(steep), jnp.array(jnp.nan), None))


def test_solve_monotone_takes_no_end_of_the_bracket_for_a_root():
    """Check a start at an end with a slope so small that Newton's step leaps over the other end."""

    def flat(x, params):
        return x**3 + 1e-3 * x, jnp.log(3 * x**2 + 1e-3)

    x, start = jnp.array(2.0), Start(*map(jnp.array, (0.0, 0.0, 10.0)))
    found = solve_monotone(Partial(flat), flat(x, None)[0], None, start)
    np.testing.assert_allclose(found, x, rtol=1e-12)


@pytest.mark.parametrize("component", ["LogisticCDF", "GaussianCDF", "LaplaceCDF"])
def test_both_tails_at_once_are_the_two_tails(component):
    """Check values and derivatives, at the median and on both sides of it."""
    component = getattr(afflow.univariates, component)()
    u = jnp.array([-30.0, -11.0, -3.0, -1e-3, -0.0, 0.0, 0.2, 5.0, 12.0])

    def apart(u):
        tails = component.log_tail(u), component.log_tail(-u)
        return tuple(map(jnp.stack, zip(*tails, strict=True)))

    slopes = jax.jacfwd(component.log_tails), jax.jacfwd(apart)
    for f, g in ((component.log_tails, apart), slopes):
        for a, b in zip(jax.vmap(f)(u), jax.vmap(g)(u), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", ["laplace mixture", "logistic mixture", "gaussian mixture"])
def test_the_search_in_a_mixture_starts_around_the_root(name):
    mixture = (UNIVARIATES | OTHERS)[name]()
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.normal(0, 2, (300, *mixture.context_shape)), jnp.float32)
    z = jnp.asarray(rng.standard_t(2, 300), jnp.float32)

    @jax.jit
    @jax.vmap
    def search(z, p):
        parameters = mixture_parameters(mixture, p)
        read = Partial(lambda y, parameters: mixture._read(y, parameters))
        start = surround(z, *parameters)
        return start, solve_monotone(read, z, parameters), mixture.forward(z, p)

    start, root, y = search(z, p)
    for inside in (root, start.x):
        assert (start.low <= inside).all()
        assert (inside <= start.high).all()
    np.testing.assert_allclose(y, root, rtol=1e-3, atol=1e-5)


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


def mixture_values(dtype, seed, num=3):
    """Return parameters with random weights, random means, and scales from 1e-3 to 1e3."""
    rng = np.random.default_rng(seed)
    logits, mu = rng.normal(0, 1, num), rng.normal(0, [1.0, 30.0][seed % 2], num)
    alpha = np.log(10) * rng.uniform(-3, 3, num)
    gain = 4 ** ((2 * np.arange(num) + 1) / num - 1)
    free = np.r_[logits, mu / gain, alpha / (1 - np.abs(alpha) / 7) / gain]
    return jnp.asarray(free, dtype)


def exact_mixture(component, params):
    """Return the tail of `component` and the exact CDF of a mixture, both in mpmath."""
    num = len(params) // 3
    gain = [mpmath.mpf(4) ** (mpmath.mpf(2 * k + 1) / num - 1) for k in range(num)]
    gain = gain if params.dtype == np.float64 else [mpmath.mpf(float(np.float32(g))) for g in gain]
    p = [mpmath.mpf(float(v)) for v in params]
    weights = [mpmath.exp(v) for v in p[:num]]
    mu = [g * v for g, v in zip(gain, p[num : 2 * num], strict=True)]
    s = [g * v for g, v in zip(gain, p[2 * num :], strict=True)]
    scale = [mpmath.exp(v / (1 + abs(v) / 7)) for v in s]

    def tail(u):
        if isinstance(component, afflow.univariates.GaussianCDF):
            return mpmath.erfc(u / mpmath.sqrt(2)) / 2
        return 1 / (1 + mpmath.exp(u))

    def probability(y, sign):
        terms = zip(weights, mu, scale, strict=True)
        return sum(w * tail(sign * (y - m) / a) for w, m, a in terms) / sum(weights)

    return tail, probability


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "component", [afflow.univariates.LogisticCDF(), afflow.univariates.GaussianCDF()], ids=str
)
def test_roots_of_mixtures_are_exact_to_some_ulp(component, dtype):
    """Check that the exact map of the root is `z`, up to a few ulp in the root and in `z`.

    Where the map is flat, many roots are equally good. Where it is steep, one ulp of the root
    moves `z` by many ulp.
    """
    mpmath.mp.dps = 50
    univariate, eps = (
        afflow.univariates.MixtureCDF(3, component, spread=0.0),
        float(jnp.finfo(dtype).eps),
    )
    z = jnp.asarray([-6, -2, -0.3, 0, 1e-3, 1, 3, 7], dtype)
    solve = jax.jit(jax.vmap(univariate.forward, (0, None)))
    for seed in range(12):
        p = mixture_values(dtype, seed)
        x = solve(z, p)
        assert np.isfinite(x).all()
        tail, probability = exact_mixture(component, np.asarray(p))
        reach = float(np.abs(4 ** (2 / 3) * np.asarray(p[3:6])).max())
        for x_t, z_t in zip(np.asarray(x, float), np.asarray(z, float), strict=True):
            dx, dz = 60 * eps * max(abs(x_t), reach), 60 * eps * max(abs(z_t), 1)
            # Compare tail probabilities, S(z) = sum of pi S(u), which lose no digits.
            assert probability(x_t + dx, 1) <= tail(mpmath.mpf(z_t) - dz)
            assert probability(x_t - dx, 1) >= tail(mpmath.mpf(z_t) + dz)


@pytest.mark.parametrize(
    "component", [afflow.univariates.LogisticCDF(), afflow.univariates.GaussianCDF()], ids=str
)
@pytest.mark.parametrize("deviation", [0.02, 0.05, 0.1, 0.15, 0.2, 0.25])
def test_flat_places_between_modes_have_roots(component, deviation):
    """Check roots where the map is flat. Newton steps without a bound left for 1e38."""
    univariate = afflow.univariates.MixtureCDF(2, component, spread=0.0)
    s = np.log(deviation) / (1 - abs(np.log(deviation)) / 7)
    for dtype in (jnp.float32, jnp.float64):
        p = jnp.asarray([0, 0, -4, 1, 2 * s, s / 2], dtype)  # means -2 and 2
        z = jnp.linspace(-6, 6, 601, dtype=dtype)
        x = jax.jit(jax.vmap(univariate.forward, (0, None)))(z, p)
        assert (np.diff(x) > -1e-3).all()
        back = jax.jit(jax.vmap(univariate.inverse, (0, None)))(x, p)
        tol = 8 * float(jnp.finfo(dtype).eps) * (1 + 2 / deviation)
        np.testing.assert_allclose(back, z, atol=tol)


@pytest.mark.parametrize("name", UNIVARIATES)
def test_roots_in_float32_are_those_of_float64_to_some_ulp(name):
    univariate, eps = UNIVARIATES[name](), float(jnp.finfo(jnp.float32).eps)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), univariate)
    univariate = jax.tree.map(lambda a: a.astype(jnp.float64), single)
    z = jnp.linspace(-9, 9, 91, dtype=jnp.float32)
    solve = jax.jit(jax.vmap(single.forward, (0, None)))
    exact = jax.jit(jax.vmap(univariate.inverse, (0, None)))
    for seed, scale in enumerate((0.1, 1.0, 5.0)):
        p = params(univariate, scale, jnp.float32, seed)
        x = np.asarray(solve(z, p), np.float64)
        dx, dz = 100 * eps * np.maximum(np.abs(x), 5), 300 * eps * np.maximum(np.abs(z), 1)
        above, below = (exact(jnp.asarray(x + d), p.astype(float)) for d in (dx, -dx))
        assert (np.asarray(z, float) <= np.asarray(above) + dz).all()
        assert (np.asarray(z, float) >= np.asarray(below) - dz).all()


def test_a_root_beyond_the_floats_is_nan():
    affine, wide = afflow.univariates.MixtureCDF(1), jnp.array([0.0, 0.0, 1e9])  # a scale of exp(7)
    for dtype in (jnp.float32, jnp.float64):
        top = jnp.finfo(dtype).max
        for z in (top, -top / 10, jnp.inf, jnp.nan):
            assert np.isnan(affine.forward(jnp.asarray(z, dtype), wide.astype(dtype)))


@pytest.mark.parametrize(
    ("dtype", "rtol"), [(jnp.float64, 1e-12), (jnp.float32, 1e-3)], ids=["float64", "float32"]
)
@pytest.mark.parametrize(
    "component", [afflow.univariates.LogisticCDF(), afflow.univariates.GaussianCDF()], ids=str
)
def test_derivatives_of_roots_keep_their_digits_in_flat_places(component, dtype, rtol):
    mpmath.mp.dps = 50
    univariate = afflow.univariates.MixtureCDF(2, component, spread=0.0)
    alpha = np.log(0.25 if isinstance(component, afflow.univariates.GaussianCDF) else 0.1)
    s = 2 * alpha / (1 + alpha / 7)
    p = jnp.asarray([0.0, 0.3, -4, 1, s, s / 4], dtype)
    z = jnp.asarray([-4.0, -0.3, 0.1, 0.14, 0.15, 0.16, 0.5, 4.0], dtype)
    jacobian = jax.jit(jax.vmap(jax.jacrev(univariate.forward, (0, 1)), (0, None)))
    x, (by_z, by_p) = jax.jit(jax.vmap(univariate.forward, (0, None)))(z, p), jacobian(z, p)
    tail, probability = exact_mixture(component, np.asarray(p))
    for i, x_i in enumerate(np.asarray(x, float)):
        slope = mpmath.diff(partial(probability, sign=1), x_i) / mpmath.diff(tail, float(z[i]))
        np.testing.assert_allclose(float(by_z[i]), float(1 / slope), rtol=rtol)
        # Moving all means by one moves the root by one.
        gain = np.array([0.5, 2.0])
        np.testing.assert_allclose((np.asarray(by_p[i, 2:4]) / gain).sum(), 1, rtol=rtol)


@pytest.mark.parametrize("name", [*UNIVARIATES, *OTHERS])
def test_second_derivatives_from_near_to_far(name):
    univariate = (UNIVARIATES | OTHERS)[name]()
    single = jax.tree.map(lambda a: a.astype(jnp.float32), univariate)
    y = jnp.asarray([0.07, -0.7, 1, 4.9, 5, 5.1, 9.99, 10, -10, 12, -12, 30, 300, -1e3])

    @jax.jit
    def hessians(univariate, y, p):
        def log_density(y, p):
            z, log_det = univariate.inverse_and_log_det(y, p)
            return log_det - z * z / 2

        return jax.vmap(jax.hessian(log_density, (0, 1)), (0, None))(y, p)

    for scale in (0.0, 0.5):
        p = params(univariate, scale)
        double = jax.tree.leaves(hessians(univariate, y, p))
        float32 = hessians(single, y.astype(jnp.float32), p.astype(jnp.float32))
        for a, b in zip(double, jax.tree.leaves(float32), strict=True):
            assert np.isfinite(a).all()
            size = 1 + np.abs(np.asarray(a)).reshape(len(y), -1).max(1)
            error = np.abs(np.asarray(a) - np.asarray(b)).reshape(len(y), -1).max(1)
            np.testing.assert_array_less(error / size, 2e-2)


def test_one_normal_has_curvature_minus_one_everywhere():
    u = np.array([9.5, 9.999999, 10.0, 10.000001, 12.0, -12.0, 1e4])
    univariate = afflow.univariates.MixtureCDF(1, afflow.univariates.GaussianCDF())

    def log_density(y):
        z, log_det = univariate.inverse_and_log_det(y, jnp.zeros(3, y.dtype))
        return log_det - z * z / 2

    for dtype, tol in ((jnp.float32, 3e-3), (jnp.float64, 1e-7)):
        slope = jax.grad(log_density)
        first, second = (jax.jit(jax.vmap(f)) for f in (slope, jax.grad(slope)))
        np.testing.assert_allclose(first(jnp.asarray(u, dtype)), -u, rtol=1e-4)
        np.testing.assert_allclose(second(jnp.asarray(u, dtype)), -1, rtol=tol)


@pytest.mark.parametrize("solver", [afflow.Incremental(), afflow.FullPasses(), afflow.Jacobi()])
def test_per_dimension_is_the_composition_by_hand(solver):
    affine, bernstein = afflow.Affine(), afflow.univariates.BernsteinPolynomial(3)
    univariates = [affine, bernstein, affine]
    conditioner = made(3, 4, (5,), context_dim=1)
    layer = afflow.MaskedAutoregressive(
        conditioner, afflow.univariates.PerDimension(univariates), solver
    )
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
    umnn = afflow.univariates.UMNN(2, (3,), rngs=nnx.Rngs(0))
    univariate = afflow.univariates.PerDimension([umnn, afflow.Affine(), umnn])
    assert len(jax.tree.leaves(univariate)) == len(jax.tree.leaves(umnn))
    with pytest.raises(ValueError, match=r"each coordinate of \(2,\), got 3"):
        afflow.Elementwise(univariate, 2)
    with pytest.raises(ValueError, match="at least one"):
        afflow.univariates.PerDimension([])
    with pytest.raises(ValueError, match="Expected a univariate"):
        afflow.univariates.PerDimension([afflow.Reverse(2)])


@pytest.mark.parametrize(
    "make",
    [
        lambda: afflow.univariates.MixtureCDF(0),
        lambda: afflow.univariates.Sigmoidal(()),
        lambda: afflow.univariates.BernsteinPolynomial(0),
        lambda: afflow.univariates.SumOfSquares(min_slope=0.0),
        lambda: afflow.univariates.UMNN(hidden=(), rngs=nnx.Rngs(0)),
    ],
)
def test_sizes_out_of_range(make):
    with pytest.raises(ValueError, match="Expected"):
        make()


@pytest.mark.parametrize(
    "make", [*UNIVARIATES.values(), afflow.Affine, afflow.univariates.Additive]
)
def test_batches_are_refused(make):
    univariate = make()
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        univariate.forward(jnp.zeros(3), jnp.zeros(univariate.context_shape))
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        univariate.inverse(jnp.zeros(3), jnp.zeros(univariate.context_shape))


@pytest.mark.parametrize(
    "make",
    [
        afflow.univariates.LinearSpline,
        afflow.univariates.QuadraticSpline,
        afflow.univariates.CubicSpline,
    ],
)
def test_polynomial_splines_have_whole_gradients_at_knots(make):
    layer = afflow.Elementwise(make(8), 2)
    np.testing.assert_allclose(jax.jacobian(layer.forward)(jnp.zeros(2)), np.eye(2), atol=1e-6)


@pytest.mark.parametrize("name", ["spline", "linear spline", "quadratic spline", "cubic spline"])
def test_parameters_that_are_nan_leave_no_number_in_the_tails(name):
    univariate = (UNIVARIATES | OTHERS)[name]()
    params = jnp.full(univariate.context_shape, jnp.nan)
    for method in (univariate.forward_and_log_det, univariate.inverse_and_log_det):
        for x in (0.3, 9.0, -50.0):
            assert np.isnan(method(jnp.array(x), params)).all()
        value, log_det = method(jnp.array(9.0), jnp.zeros(univariate.context_shape))
        assert (value, log_det) == (9.0, 0.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, jnp.inf, jnp.nan])
def test_bounds_of_splines_are_positive_and_finite(bound):
    for kind in ("LinearSpline", "QuadraticSpline", "CubicSpline", "RationalQuadraticSpline"):
        with pytest.raises(ValueError, match="bound > 0"):
            getattr(afflow.univariates, kind)(4, bound)
