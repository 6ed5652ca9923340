"""Splines: at knots, at the bound, far outside, and on the circle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow
from afflow.univariates.rational_quadratic_bins import Grid, divide, locate

SPLINES = {
    "linear tails": afflow.RationalQuadraticSpline(6, 3.0),
    "circular": afflow.univariates.CircularSpline(6, 3.0),
}
DIRECTIONS = ["forward_and_log_det", "inverse_and_log_det"]


def parameters(spline, scale=2.0):
    """Return random parameters of a spline."""
    return scale * jax.random.normal(jax.random.key(0), spline.context_shape)


def edges(params):
    """Return the knots on one axis of a spline with six bins."""
    bins, _ = divide(Grid(6, 3.0, 1e-3, 1e-3), params)
    return jnp.stack([*(part.start for part in bins), bins[-1].start + bins[-1].size])


@pytest.mark.parametrize("name", SPLINES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("scale", [0.0, 2.0, 300.0])
def test_gradients_are_finite_everywhere(name, dtype, direction, scale):
    spline = SPLINES[name]
    params = parameters(spline, scale).astype(dtype)
    ends = [edges(params[i : i + 6])[:-1] for i in (0, 6)]
    far = jnp.array([-1e6, -1e4, -3.0001, 0.0, 1e-30, 2.9999, 3.0001, 1e4, 1e6])
    x = jnp.concatenate([*ends, far]).astype(dtype)

    def run(x, params):
        y, log_det = getattr(spline, direction)(x, params)
        return y, log_det

    for output in (0, 1):
        grad = jax.grad(lambda x, p, output=output: run(x, p)[output], argnums=(0, 1))
        grads = jax.jit(jax.vmap(grad, (0, None)))(x, params)
        assert all(np.isfinite(g).all() for g in grads)
    y, log_det = jax.vmap(run, (0, None))(x, params)
    assert y.dtype == log_det.dtype == dtype
    assert np.isfinite(y).all()


@pytest.mark.parametrize("name", SPLINES)
def test_knots_meet(name):
    """Check equal values and slopes on both sides of every knot, and NaN for NaN."""
    spline, eps = SPLINES[name], 1e-9
    params = parameters(spline)
    for start, direction in zip((0, 6), DIRECTIONS[::-1], strict=True):
        at = edges(params[start : start + 6])
        f = jax.vmap(getattr(spline, direction), (0, None))
        for below, above in zip(f(at - eps, params), f(at + eps, params), strict=True):
            np.testing.assert_allclose(below, above, atol=1e-5)
    assert np.isnan(spline.inverse(jnp.nan, params))
    assert np.isnan(spline.forward(jnp.nan, params))


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_tangents_of_a_bin_are_those_of_the_search(axis, closed, scale):
    """Check first and second derivatives of the custom rule against those of the search."""
    grid = Grid(6, 3.0, 1e-3, 1e-3, closed)
    params = scale * jax.random.normal(jax.random.key(1), (grid.num_params,))
    values = jnp.linspace(-2.9, 2.9, 15)

    def derivatives(find):
        def stacked(value, params):
            return jnp.stack(find(grid, axis, value, params))

        first = jax.jacrev(stacked, argnums=1)

        def both(value):
            return first(value, params), jax.jacfwd(first, argnums=1)(value, params)

        return jax.jit(jax.vmap(both))(values)

    for ours, expected in zip(derivatives(locate), derivatives(locate.fun), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", SPLINES)
@pytest.mark.parametrize("size", [10.0, 1e2, 1e6])
def test_tied_and_extreme_parameters_at_their_knots(name, direction, size):
    """Check in compiled float32 that an event gets one bin, and a positive slope."""
    spline, rng = SPLINES[name], np.random.default_rng(0)
    shape = (2000, *spline.context_shape)
    params = rng.choice(size * np.array([-1, -0.5, 0, 0.5, 1]), shape).astype(np.float32)
    x = rng.choice([-3, -2.9999998, -1.5, -1, 0, 1, 1.5, 2, 2.9999998, 3], 2000)
    x = x.astype(np.float32)
    run = jax.jit(jax.vmap(getattr(spline, direction)))

    def total(x, params):
        return sum(getattr(spline, direction)(x, params))

    grads = jax.jit(jax.vmap(jax.grad(total, argnums=(0, 1))))(x, params)
    y, log_det = run(x, params)
    assert all(np.isfinite(leaf).all() for leaf in (y, log_det, *grads))
    low, high = (run(x + np.float64(h), params.astype(float))[0] for h in (-2e-6, 2e-6))
    assert ((low - 1e-4 < y) & (y < high + 1e-4)).all()


def test_tails_are_the_identity():
    spline, x = SPLINES["linear tails"], jnp.array([-7.0, -3.0, 3.0, 1e6])
    y, log_det = jax.vmap(spline.inverse_and_log_det, (0, None))(x, parameters(spline))
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(log_det, 0)


def test_circle_closes():
    """Check that a density on the circle integrates to one, and that both ends agree."""
    dim, bound = 2, 3.0
    conditioner = afflow.MADE(dim, 18, (8,), rngs=nnx.Rngs(0))
    layer = afflow.MaskedAutoregressive(conditioner, SPLINES["circular"])
    flow = afflow.Flow(afflow.Uniform(dim, -bound, bound), randomize(layer, 0.4))
    axis = np.linspace(-bound, bound, 401)[:-1] + bound / 400
    grid = np.stack(np.meshgrid(axis, axis), -1)
    density = jnp.exp(flow.log_prob(grid))
    np.testing.assert_allclose(density.mean() * (2 * bound) ** 2, 1, atol=1e-3)
    samples = flow.sample(jax.random.key(0), 1000)
    assert (np.abs(samples) <= bound + 1e-12).all()
    ends = jnp.stack([jnp.array([-bound, -bound]), jnp.array([-bound, bound])])
    second = jax.jacfwd(lambda x: layer.inverse(x))
    np.testing.assert_allclose(*(second(end)[1, 1] for end in ends), rtol=1e-12)


def test_float32_round_trip_is_accurate():
    spline = SPLINES["linear tails"]
    params = parameters(spline).astype(jnp.float32)
    x = jnp.linspace(-4, 4, 2001, dtype=jnp.float32)
    y = jax.vmap(spline.forward, (0, None))(x, params)
    back = jax.vmap(spline.inverse, (0, None))(y, params)
    np.testing.assert_allclose(back, x, atol=2e-5)


@pytest.mark.parametrize(
    "sizes", [{"num_bins": 1}, {"bound": 0.0}, {"num_bins": 10, "min_bin": 0.1}, {"min_slope": 1.0}]
)
def test_bad_sizes(sizes):
    for make in (afflow.RationalQuadraticSpline, afflow.univariates.CircularSpline):
        with pytest.raises(ValueError, match="Expected"):
            make(**sizes)
