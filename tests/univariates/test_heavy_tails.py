"""Power tails: the map against its definition, and flows that find the tails of data."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.stats as st
from flax import nnx

import afflow
from afflow.univariates.heavy_tails import tail_indices

KEY = jax.random.key(0)
TAILS = afflow.univariates.HeavyTails()


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float64, 1e-13), (jnp.float32, 2e-6)])
def test_the_inverse_is_lamberts(dtype, rtol):
    """Check the inverse against mpmath, from 1e-30 almost to the end of the curved part."""
    for index in (1e-3, 0.1, 0.5, 1.0, 1.9):
        s = jnp.array(afflow.univariates.HeavyTails.params_of([index, index]), dtype)
        delta = 2 / (1 + mpmath.exp(5 - mpmath.mpf(float(s[1]))))
        end = float(8 * mpmath.exp(32 * delta))
        for y in np.array([-1e-30, 1e-3, 1.0, -7.0, min(1e3, end), 0.9 * end], dtype):
            w = mpmath.lambertw(delta * mpmath.mpf(float(y)) ** 2).real
            x, log_det = TAILS.inverse_and_log_det(jnp.array(y), s)
            expected = mpmath.mpf(float(y)) * mpmath.exp(-w / 2)
            np.testing.assert_allclose(float(x), float(expected), rtol=rtol)
            exact = float(-w / 2 - mpmath.log(1 + w))
            np.testing.assert_allclose(float(log_det), exact, rtol=rtol, atol=rtol)


def test_a_straight_line_far_out():
    s = jnp.array(afflow.univariates.HeavyTails.params_of([0.5, 1.9]))
    slope = jax.grad(lambda x: TAILS.forward(x, s))
    np.testing.assert_allclose(slope(8.1), slope(1e6), rtol=1e-12)
    np.testing.assert_allclose(TAILS.inverse(TAILS.forward(-1e5, s), s), -1e5, rtol=1e-12)
    y = TAILS.forward(jnp.float32(1e4), s.astype(jnp.float32))
    assert np.isfinite(y)


def test_tails_are_those_of_the_index():
    """Check that the log-density falls far out with the slope of Student's t of equal index."""
    s = jnp.array(afflow.univariates.HeavyTails.params_of([1 / 3, 1 / 3]))
    base = afflow.Flow(afflow.Normal(1), afflow.Elementwise(TAILS, 1))
    base.bijector.params[...] = s[None]
    far = np.geomspace(1e4, 1e5, 5)
    slope = np.polyfit(np.log(far), base.log_prob(far[:, None]), 1)[0]
    assert abs(slope + 4) < 0.15  # slope of t with three degrees of freedom, up to logarithms


def test_indices_of_samples():
    rng = np.random.default_rng(0)
    for df in (1, 2, 4):
        both = np.array([tail_indices(rng.standard_t(df, 5000)) for _ in range(5)])
        np.testing.assert_allclose(both.mean(), 1 / df, rtol=0.1, atol=0.05)
    for light in (rng.normal(size=5000), rng.random(5000), rng.integers(0, 2, 5000)):
        assert tail_indices(light).max() < 0.1
    few_but_bounded = np.where(rng.random(5000) < 0.01, 100 * rng.random(5000), rng.random(5000))
    assert tail_indices(few_but_bounded).max() < 0.2
    assert tail_indices(rng.standard_cauchy(100)).max() == 0  # too few rows for an estimate


@pytest.mark.parametrize("make", [afflow.maf, afflow.nsf])
@pytest.mark.parametrize(
    "law", [st.t(2), st.cauchy(), st.norm()], ids=["student", "cauchy", "normal"]
)
def test_flows_follow_tails_as_they_come(make, law):
    """Check that fits to heavy-tailed and normal data are within 0.1 nats of the truth."""
    x, test = (law.rvs((n, 2), random_state=i) for i, n in enumerate((2000, 20_000)))
    flow = make(2, num_layers=2, hidden=(16,), data=x, rngs=nnx.Rngs(0))
    flow, _ = afflow.fit(flow, x, key=KEY, max_epochs=30, progress=False)
    assert abs(np.mean(flow.log_prob(test)) - law.logpdf(test).sum(1).mean()) < 0.1
