"""Extreme numbers: infinite, huge, rare, or fractional instead of whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow

KEY = jax.random.key(0)
CAUCHY = np.random.default_rng(0).standard_cauchy((500, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: afflow.maf(2, num_layers=2, hidden=(8,), rngs=rngs),
        lambda rngs: afflow.nsf(2, num_layers=2, hidden=(8,), rngs=rngs),
        lambda rngs: afflow.rnade(2, hidden=4, rngs=rngs),
        lambda rngs: afflow.nade(2, hidden=4, rngs=rngs),
        lambda rngs: afflow.zoo.deep_nade(2, hidden=(4,), rngs=rngs),
    ],
    ids=["maf", "nsf", "rnade", "nade", "deep nade"],
)
def test_infinite_events_have_no_density(make):
    model = make(nnx.Rngs(0))
    inf, nan = jnp.inf, jnp.nan
    x = jnp.array([[inf, 0.0], [0.0, -inf], [inf, inf], [-inf, 1.0]])
    assert (model.log_prob(x) == -inf).all()
    assert np.isnan(model.log_prob(jnp.array([[nan, 0.0], [inf, nan], [nan, -inf]]))).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: afflow.zoo.gaussianization_flow(2, num_layers=2, rngs=rngs),
        lambda rngs: afflow.rnade(2, hidden=4, rngs=rngs),
        lambda rngs: afflow.nsf(2, num_layers=1, hidden=(4,), data=CAUCHY, rngs=rngs),
    ],
    ids=["gaussianization", "rnade", "heavy tails"],
)
def test_densities_and_gradients_of_finite_events_are_numbers(make):
    """Check events up to the end of float32. Squares of 1e20 overflow; their density is zero."""
    with jax.enable_x64(False):
        model = make(nnx.Rngs(0))
        size = jnp.array([1e4, 1e15, 1e18, 1e20, 1e30, 1e34])
        x = jnp.stack([size, -size], -1)
        by_model = jax.jit(jax.vmap(jax.grad(lambda m, x: m.log_prob(x)), (None, 0)))
        by_x = jax.jit(jax.vmap(jax.grad(model.log_prob)))
        log_prob = model.log_prob(x)
        assert (log_prob <= log_prob[0]).all()
        assert np.isfinite(log_prob[:3]).all()
        for gradients in (by_model(model, x), by_x(x)):
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int16, jnp.int32, np.uint8])
def test_integers_of_every_type_have_256_levels(dtype):
    x = jnp.array([0, 100, 255]).astype(dtype)
    np.testing.assert_array_equal(afflow.models.quantize(afflow.dequantize(KEY, x)), x)


def test_levels_that_leave_room_for_noise():
    x = jnp.array([0, 1, 2, 2**15 - 1])
    with jax.enable_x64(False):
        y = afflow.dequantize(KEY, jnp.tile(x, (4000, 1)), 2**15)
        assert len(np.unique(y[:, 3])) > 100
        np.testing.assert_array_equal(afflow.models.quantize(y, 2**15)[0], x)
        with pytest.raises(ValueError, match="levels <= 32768"):
            afflow.dequantize(KEY, x, 2**16)
    y = afflow.dequantize(KEY, x, 2**21)
    np.testing.assert_array_equal(afflow.models.quantize(y, 2**21), x)


@pytest.mark.parametrize(
    ("x", "levels", "message"),
    [
        ([0], 0, "levels >= 2"),
        ([0], -3, "levels >= 2"),
        ([0], 2.5, "whole number levels"),
        ([1, 2, 3], 3, "subtract the least"),
        ([-1, 0], 2, "subtract the least"),
    ],
)
def test_levels_and_integers_out_of_range(x, levels, message):
    with pytest.raises(ValueError, match=message):
        afflow.dequantize(KEY, jnp.array(x), levels)


def test_weights_far_from_one_keep_their_digits():
    """Check estimates from float32 log-weights near -5e4 against the offset removed in float64."""
    offset, spread = np.float32(-5e4), np.float32(2**-5)
    log_weights = offset + spread * np.arange(-2, 3, dtype=np.float32).repeat(20_000)
    exact = np.exp(log_weights.astype(float) + 5e4)
    ess = exact.sum() ** 2 / np.square(exact).sum()
    found = afflow.inference.effective_sample_size(jnp.asarray(log_weights, jnp.float32))
    np.testing.assert_allclose(found, ess, rtol=1e-4)
    error = afflow.inference.log_evidence(jnp.asarray(log_weights, jnp.float32)).standard_error
    np.testing.assert_allclose(error, np.sqrt(1 / ess - 1 / len(log_weights)), rtol=2e-2)


def test_rare_bits_are_as_rare_as_they_should():
    """Check the frequency of bits rarer than the steps of a float32 uniform."""
    with jax.enable_x64(False):
        draw = jax.jit(
            lambda keys, p: jax.vmap(lambda k: afflow.conditionals.Bernoulli().sample(k, p))(
                keys
            ).sum()
        )
        for logit in (-14.0, 14.0):
            drawn = sum(
                int(draw(jax.random.split(jax.random.key(i), 2**20), jnp.array([logit])))
                for i in range(8)
            )
            rare = drawn if logit < 0 else 2**23 - drawn
            expected = 2**23 / (1 + np.exp(14.0))  # 7
            assert abs(rare - expected) < 4 * np.sqrt(expected)


def test_bernoulli_uniforms_reach_below_the_spacing_of_one():
    from afflow.conditionals.bernoulli import _uniform

    with jax.enable_x64(False):
        u = jax.jit(jax.vmap(lambda key: _uniform(key, jnp.float32)))(jax.random.split(KEY, 2**16))
        assert 0 < u.min()
        assert len(np.unique(u)) > 0.99 * len(u)


def test_a_class_need_not_be_normalised():
    base = afflow.distributions.ClassConditional(
        [afflow.Normal(1), afflow.distributions.Laplace(1)]
    )
    x = jnp.zeros(1)
    expected = base.log_prob(x, jnp.array([0.25, 0.75]))
    np.testing.assert_allclose(base.log_prob(x, jnp.array([1.0, 3.0])), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: afflow.bijectors.Hutchinson(2, KEY, num_probes=0), "num_probes >= 1"),
        (lambda: afflow.distributions.StudentT(1, np.inf), "its limit is `Normal`"),
        (lambda: afflow.distributions.MultivariateNormal([np.nan, 0], np.eye(2)), "finite mean"),
        (
            lambda: afflow.zoo.deep_nade(2, hidden=(3,), num_orders=2.5, rngs=nnx.Rngs(0)),
            "num_orders",
        ),
        (
            lambda: afflow.OrderAgnosticModel(
                afflow.conditioners.DeepNADE(2, 1, (3,), rngs=nnx.Rngs(0)),
                afflow.conditionals.Bernoulli(),
                natural=True,
            ),
            "over random orders only",
        ),
    ],
)
def test_numbers_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", ["max_epochs", "batch_size", "patience"])
def test_fit_takes_whole_numbers(name):
    flow = afflow.made(1, hidden=(2,), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=f"whole number {name}"):
        afflow.fit(flow, np.zeros((9, 1)), key=KEY, validation=0, progress=False, **{name: 1.5})


def test_parameters_after_an_angle_are_periodic():
    made = randomize(afflow.MADE(6, 2, hidden=(8,), rngs=nnx.Rngs(0)))
    network, x = afflow.conditioners.Periodic(made, angles=[1]), jnp.array([0.3, -1.2, 2.0])
    turn = 2 * jnp.pi * jnp.eye(3)
    np.testing.assert_allclose(network(x + turn[1]), network(x), atol=1e-6)
    assert np.abs(network(x + turn[0]) - network(x)).max() > 0.1
    with pytest.raises(ValueError, match=r"angles in 0..2, got \[3\]"):
        afflow.conditioners.Periodic(made, angles=[3])


def test_periodic_is_incremental_where_its_conditioner_is():
    class Full(afflow.Conditioner):
        event_shape, context_shape, num_params = (4,), None, 2

        def __call__(self, x, context=None):
            return jnp.zeros((4, 2))

    assert not afflow.conditioners.Periodic(Full()).is_incremental
    assert afflow.conditioners.Periodic(afflow.MADE(4, 2, rngs=nnx.Rngs(0))).is_incremental
