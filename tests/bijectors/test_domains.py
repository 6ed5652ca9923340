"""Domains: no density outside, no NaN at the edges, and saturated samples stay inside."""

import math
from fractions import Fraction
from itertools import compress

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from registry import autoregressive, interval, randomize

import afflow

KEY = jax.random.key(3)
INF, NAN = jnp.inf, jnp.nan

DOMAINS = {
    "interval": (
        lambda: interval(2),
        [[-1.0, 0.0], [1.0, 0.0], [0.0, 9.0], [-INF, 0.0], [0.0, INF]],
    ),
    "probit": (
        lambda: afflow.bijectors.Probit(-jnp.ones(2), jnp.array([1.0, 9.0])),
        [[-1.0, 0.0], [1.0, 0.0], [0.0, 9.0], [-INF, 0.0], [0.0, INF]],
    ),
    "positive": (
        lambda: afflow.bijectors.Positive(2),
        [[0.0, 1.0], [1.0, -1e-30], [-INF, 1.0], [-5.0, -1e9]],
    ),
    "exp": (
        lambda: afflow.bijectors.Exp(2),
        [[0.0, 1.0], [1.0, -1e-30], [-INF, 1.0], [-5.0, -1e9]],
    ),
    "tanh": (lambda: afflow.bijectors.Tanh(2), [[1.0, 0.0], [0.0, -1.0], [5.0, 0.0], [0.0, -INF]]),
    "simplex": (
        lambda: afflow.bijectors.Simplex(2),
        [[0.0, 0.5], [0.5, 0.5], [0.9, 0.2], [1.5, -0.7], [-0.1, 0.5], [1.0, 0.0], [INF, 0.1]],
    ),
    "ordered": (lambda: afflow.bijectors.Ordered(2), [[1.0, 1.0], [2.0, 1.0], [1e30, -1e30]]),
}


@pytest.mark.parametrize("name", DOMAINS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_no_density_on_the_boundary_or_outside(name, dtype):
    make, outside = DOMAINS[name]
    flow = afflow.Flow(afflow.Normal(2), make())
    x = jnp.array(outside, dtype)
    log_prob = flow.log_prob(x)
    assert (log_prob == -INF).all(), log_prob
    assert log_prob.dtype == dtype
    grads = jax.vmap(jax.grad(flow.log_prob))(x)
    assert np.isfinite(grads).all()


@pytest.mark.parametrize("name", DOMAINS)
def test_parameters_in_front_get_finite_gradients_outside(name):
    make, outside = DOMAINS[name]
    affine = randomize(afflow.Elementwise(afflow.Affine(), 2))
    flow = afflow.Flow(afflow.Normal(2), afflow.Chain([affine, make()]))
    finite = jnp.array([x for x in outside if np.isfinite(x).all()])

    @jax.grad
    def score(flow):
        return jnp.sum(flow.log_prob(finite))

    for grad in jax.tree.leaves(score(flow)):
        assert np.isfinite(grad).all()


@pytest.mark.parametrize("name", DOMAINS)
def test_nan_stays_nan(name):
    make, outside = DOMAINS[name]
    flow = afflow.Flow(afflow.Normal(2), make())
    for x in ([NAN, 0.1], [0.1, NAN], [NAN, NAN], [NAN, -3.0]):
        assert np.isnan(flow.log_prob(jnp.array(x))), x
        assert np.isnan(flow.bijector.forward(jnp.array(x))).any()


@pytest.mark.parametrize("name", [name for name in DOMAINS if name != "ordered"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_saturated_samples_stay_inside(name, dtype):
    """Check samples of extreme noise, which round to the boundary, for a density."""
    flow = afflow.Flow(afflow.Normal(2), DOMAINS[name][0]())
    noise = jnp.array([[1, 1], [1, -1], [-1, 1], [-1, -1], [0, 1], [1, 0], [0, -1]], dtype)
    for scale in (10, 100, 1e4):
        x = jax.vmap(flow.bijector.forward)(scale * noise)
        assert np.isfinite(x).all()
        assert (flow.log_prob(x) > -INF).all(), (scale, x)
        grads = jax.vmap(jax.grad(flow.log_prob))(x)
        assert not np.isnan(grads).any()


def test_wide_simplex_stays_inside():
    flow = afflow.Flow(afflow.Normal(500), afflow.bijectors.Simplex(500))
    noise = jax.random.normal(KEY, (200, 500), jnp.float32)
    for scale in (1, 5, 100):
        x = jax.vmap(flow.bijector.forward)(scale * noise)
        assert (x > 0).all()
        assert (flow.log_prob(x) > -INF).all(), scale


@pytest.mark.parametrize(("dim", "deviation"), [(200, 2.0), (20, 2.0), (1, 5.0)])
def test_simplex_keeps_the_digits_of_its_last_class(dim, deviation):
    """Check log-determinants against `1 - sum`, computed exactly from float32 probabilities."""
    simplex = afflow.bijectors.Simplex(dim)
    noise = deviation * jax.random.normal(KEY, (246, dim))
    y = jax.jit(jax.vmap(simplex.forward))(noise).astype(jnp.float32)
    last = [1 - sum(map(Fraction, row)) for row in np.asarray(y, float).tolist()]
    inside = np.array([part > 0 for part in last])
    exact = -np.log(np.asarray(y, float)).sum(1)[inside] - np.log(
        [*map(float, compress(last, inside))]
    )
    log_det = np.asarray(jax.jit(jax.vmap(simplex.inverse_and_log_det))(y)[1])
    assert np.isfinite(log_det[inside]).all()
    assert (log_det[~inside] == -INF).all()
    np.testing.assert_allclose(log_det[inside], exact, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(("dim", "location"), [(3, -14.0), (50, -12.0), (3, 0.0), (200, -5.0)])
def test_simplex_samples_are_moved_by_rounding_only(dim, location):
    """Check that small probabilities keep their digits beside a last class close to one."""
    simplex = afflow.bijectors.Simplex(dim)
    x = location + 0.5 * jax.random.normal(KEY, (500, dim), jnp.float32)
    y, log_det = jax.jit(jax.vmap(simplex.forward_and_log_det))(x)
    back, log_det_back = jax.jit(jax.vmap(simplex.inverse_and_log_det))(y)
    np.testing.assert_allclose(back, x, atol=2e-4)
    np.testing.assert_allclose(log_det_back, -log_det, rtol=1e-5, atol=2e-3)


def test_simplex_samples_reach_a_tiny_last_class():
    simplex, noise = (
        afflow.bijectors.Simplex(200),
        2 * jax.random.normal(KEY, (246, 200), jnp.float32),
    )
    y, log_det = jax.jit(jax.vmap(simplex.forward_and_log_det))(noise)
    last = np.array([float(1 - sum(map(Fraction, row))) for row in np.asarray(y, float).tolist()])
    assert 0 < last.min() < 1e-11
    back = jax.jit(jax.vmap(simplex.inverse_and_log_det))(y)[1]
    np.testing.assert_allclose(back, -log_det, atol=0.1)


def test_training_by_hand_leaves_constants_alone():
    """Check that an optimizer over all arrays does not move the ends of an interval."""
    ends = afflow.bijectors.Interval(jnp.zeros(2), jnp.ones(2))
    layers = afflow.Chain([randomize(afflow.Elementwise(afflow.Affine(), 2)), ends])
    flow = afflow.Flow(afflow.Normal(2), layers)
    x = jax.random.uniform(KEY, (50, 2))
    optimizer = optax.adam(0.1)
    gradient = jax.jit(jax.grad(lambda flow: -flow.log_prob(x).mean()))
    updates, _ = optimizer.update(gradient(flow), optimizer.init(flow))
    trained = optax.apply_updates(flow, updates)
    np.testing.assert_array_equal(trained.bijector.bijectors[1].low[...], jnp.zeros(2))
    np.testing.assert_array_equal(trained.bijector.bijectors[1].high[...], jnp.ones(2))
    before, after = (f.bijector.bijectors[0].params[...] for f in (flow, trained))
    assert (np.asarray(before) != np.asarray(after)).all()


def test_ordered_samples_never_cross():
    noise = 30 * jax.random.normal(KEY, (200, 300), jnp.float32)
    y = jax.vmap(afflow.bijectors.Ordered(300).forward)(noise)
    assert (y[:, 1:] >= y[:, :-1]).all()


def test_interval_of_nearly_no_width():
    low = jnp.array([1000.0], jnp.float32)
    flow = afflow.Flow(afflow.Normal(1), afflow.bijectors.Interval(low, low + 0.001))
    x = jax.vmap(flow.bijector.forward)(jax.random.normal(KEY, (500, 1), jnp.float32))
    assert np.isfinite(flow.log_prob(x)).all()


def test_a_flow_in_a_box_leaks_nothing():
    flow = afflow.Flow(afflow.Normal(2), afflow.Chain([autoregressive(2), interval(2)]))
    x = np.asarray(flow.sample(KEY, 1000))
    low, high = (np.asarray(end[...]) for end in (interval(2).low, interval(2).high))
    assert ((x > low) & (x < high)).all()
    axes = [np.linspace(a - 1, b + 1, 901) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    density = np.exp(flow.log_prob(grid))
    inside = ((grid > low) & (grid < high)).all(-1)
    volume = np.prod(high - low + 2) / 900**2
    assert (density[~inside] == 0).all()
    np.testing.assert_allclose(density[inside].sum() * volume, 1, atol=1e-3)


def test_simplex_density_integrates_to_one():
    flow = afflow.Flow(afflow.Normal(2), afflow.bijectors.Simplex(2))
    cells = (np.arange(600) + 0.5) / 600
    grid = np.stack(np.meshgrid(cells, cells), -1)
    np.testing.assert_allclose(jnp.exp(flow.log_prob(grid)).mean(), 1, atol=1e-4)


def test_simplex_is_dirichlet_on_its_own_base():
    """Check that sticks with Beta lengths give the uniform Dirichlet distribution."""
    z = jnp.array([0.3, -1.2, 0.8])
    y, log_det = afflow.bijectors.Simplex(3).forward_and_log_det(z)
    rest = jnp.array([3.0, 2.0, 1.0])  # stick k is Beta(1, rest)
    shifted = z - jnp.log(rest)
    log_base = jnp.log(rest) + jax.nn.log_sigmoid(shifted) + rest * jax.nn.log_sigmoid(-shifted)
    np.testing.assert_allclose(log_base.sum() - log_det, math.log(math.factorial(3)), rtol=1e-12)


def test_circle_turns():
    shift = randomize(afflow.bijectors.CircularShift(2), scale=3.0)
    flow = afflow.Flow(afflow.Uniform(2, -math.pi, math.pi), shift)
    for dtype in (jnp.float32, jnp.float64):
        x = jax.random.uniform(KEY, (1000, 2), dtype, -math.pi, math.pi)
        y = jax.vmap(shift.forward)(x)
        assert (abs(y) <= math.pi + 1e-6).all()
        turns = (np.asarray(y) - np.asarray(x) - np.asarray(shift.phase[...])) / (2 * math.pi)
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-6)
        np.testing.assert_allclose(jax.vmap(shift.inverse)(y), x, atol=2e-6)
        np.testing.assert_allclose(flow.log_prob(y), -2 * math.log(2 * math.pi), rtol=1e-6)
        edges = jnp.array([[-math.pi, math.pi], [0.0, 7.0], [1e4, -1e4]], dtype)
        assert np.isfinite(flow.log_prob(edges)).all()
        assert np.isfinite(jax.vmap(jax.grad(flow.log_prob))(edges)).all()
    assert np.isnan(flow.log_prob(jnp.array([NAN, 0.0])))


ERRORS = {
    "an interval backwards": (
        lambda: afflow.bijectors.Interval(jnp.ones(2), jnp.zeros(2)),
        "low < high",
    ),
    "an endless interval": (
        lambda: afflow.bijectors.Interval(jnp.zeros(1), jnp.full(1, INF)),
        "finite",
    ),
    "unequal ends": (lambda: afflow.bijectors.Interval(jnp.zeros(2), jnp.ones(3)), "alike"),
    "a simplex of one": (lambda: afflow.bijectors.Simplex(0), "dim >= 1"),
    "nothing to order": (lambda: afflow.bijectors.Ordered(0), "dim >= 1"),
    "an empty event": (lambda: afflow.bijectors.Positive(0), "whole number"),
    "an empty circle": (lambda: afflow.bijectors.CircularShift(0), "whole number"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_was_expected(name):
    make, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        make()


def test_samples_next_to_an_end_of_a_wide_box_have_a_density():
    with jax.enable_x64(False):
        box = afflow.bijectors.Probit(jnp.zeros(1), jnp.full(1, 4.0))
        tiny = jnp.finfo(jnp.float32).tiny
        x, log_det = jax.vmap(box.inverse_and_log_det)(jnp.array([[tiny], [1.5 * tiny], [3.99]]))
        assert np.isfinite(x).all()
        assert np.isfinite(log_det).all()


def test_a_power_stays_within_the_float_type():
    with jax.enable_x64(False):
        power = afflow.bijectors.Power(1, 3.0)
        y = jax.vmap(power.forward)(jnp.array([[1e-30], [1e30], [2.0]]))
        assert np.isfinite(y).all()
        assert (y > 0).all()
        assert np.isfinite(jax.vmap(power.inverse_and_log_det)(y)[1]).all()


def test_derivatives_where_two_branches_meet():
    box = afflow.bijectors.Probit(jnp.zeros(1), jnp.ones(1))
    slope = jax.jacobian(box.inverse)(jnp.full(1, 0.5))
    np.testing.assert_allclose(slope, [[math.sqrt(2 * math.pi)]], rtol=1e-9)
    circle = afflow.bijectors.CircularShift(1)
    for end in (-math.pi, math.pi):
        np.testing.assert_array_equal(jax.jacobian(circle.inverse)(jnp.full(1, end)), [[1]])
    laplace = afflow.univariates.MixtureCDF(1, afflow.univariates.LaplaceCDF())
    np.testing.assert_allclose(jax.grad(laplace.inverse)(0.0, jnp.zeros(3)), 1, rtol=1e-9)


def test_a_margin_that_floats_do_not_resolve_is_refused():
    with jax.enable_x64(False), pytest.raises(ValueError, match="resolution of float32"):
        afflow.bijectors.Logit(1, 1e-8)
    assert np.isfinite(afflow.bijectors.Logit(1, 1e-8).inverse_and_log_det(jnp.ones(1))[1])


def test_a_box_near_the_largest_number():
    with jax.enable_x64(False):
        for kind in (afflow.bijectors.Interval, afflow.bijectors.Probit):
            x, log_det = kind(jnp.full(1, 2e38), jnp.full(1, 3e38)).inverse_and_log_det(jnp.ones(1))
            assert np.isfinite(x).all()
            assert log_det == -np.inf
