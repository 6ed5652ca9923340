"""Priors: densities against SciPy, supports, and bijectors from the reals."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

import afflow
from afflow import sbi

from_numpyro = afflow.adapters.prior_from_numpyro
KEY = jax.random.key(0)
LOW, HIGH = np.array([-1.0, 2.0]), np.array([1.0, 7.0])


def make_gamma():
    """Return the gamma prior of shape 2, from NumPyro."""
    return from_numpyro(dist.Gamma(2.0, 1.0), 1)


def make_tails():
    """Return normals above two bounds, from NumPyro."""
    return from_numpyro(dist.TruncatedNormal(low=jnp.array([1.0, 2.0])))


PRIORS = {
    "box": (lambda: sbi.box(LOW, HIGH), [stats.uniform(-1, 2), stats.uniform(2, 5)]),
    "gaussian": (lambda: sbi.gaussian([1.0], [2.0]), [stats.norm(1, 2)]),
    "lognormal": (lambda: sbi.lognormal([1.0], [0.5]), [stats.lognorm(0.5, scale=np.e)]),
    "gamma": (make_gamma, [stats.gamma(2.0)]),
    "tails": (make_tails, [stats.truncnorm(low, np.inf) for low in (1.0, 2.0)]),
    "middle": (
        lambda: from_numpyro(dist.TruncatedNormal(low=-1.0, high=2.0), 1),
        [stats.truncnorm(-1.0, 2.0)],
    ),
    "laplace": (lambda: from_numpyro(dist.Laplace(), 1), [stats.laplace()]),
    "normal": (
        lambda: from_numpyro(dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))),
        [stats.norm(), stats.norm()],
    ),
    "independent": (
        lambda: sbi.independent([sbi.lognormal([0.0], [1.0]), sbi.box(LOW, HIGH), make_gamma()]),
        [stats.lognorm(1.0), stats.uniform(-1, 2), stats.uniform(2, 5), stats.gamma(2.0)],
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_density_and_samples_are_those_of_scipy(name):
    make, parts = PRIORS[name]
    prior = make()
    theta = np.asarray(prior.sample(KEY, 2000))
    assert theta.shape == (2000, len(parts))
    exact = sum(part.logpdf(theta[:, i]) for i, part in enumerate(parts))
    np.testing.assert_allclose(prior.log_prob(theta), exact, atol=1e-9)
    for i, part in enumerate(parts):
        assert stats.kstest(theta[:, i], part.cdf).pvalue > 1e-4


@pytest.mark.parametrize("name", PRIORS)
def test_base_in_coordinates_of_the_reals(name):
    """Check the base and the bijector apart, as the sampler of a posterior uses them."""
    prior = PRIORS[name][0]()
    z = jax.random.normal(KEY, (20, *prior.event_shape))
    theta, log_det = jax.vmap(prior.bijector.forward_and_log_det)(z)
    in_z = jax.vmap(prior.base.log_prob)(z)
    np.testing.assert_allclose(in_z, prior.log_prob(theta) + log_det, atol=1e-9)


def test_no_density_outside_the_support():
    assert (
        sbi.box(LOW, HIGH).log_prob(jnp.array([[0.0, 7.5], [-1.5, 3.0]])).tolist() == [-np.inf] * 2
    )
    assert sbi.lognormal([0.0], [1.0]).log_prob(jnp.array([-1.0])) == -np.inf
    assert make_tails().log_prob(jnp.array([2.0, 1.9])) == -np.inf


def test_box_in_float32():
    prior = sbi.box(LOW, HIGH)
    theta = prior.sample(KEY, 500).astype(jnp.float32)
    np.testing.assert_allclose(prior.log_prob(theta), -np.log(10), atol=1e-4)


ERRORS = {
    "one number": (lambda: sbi.box(0.0, 1.0), r"low.shape \(D,\)"),
    "a box backwards": (lambda: sbi.box([1.0], [0.0]), "low < high"),
    "no priors": (lambda: sbi.independent([]), "distributions of vectors"),
    "one prior": (lambda: sbi.independent(sbi.box(LOW, HIGH)), "list of Flows"),
    "no vector": (lambda: from_numpyro(dist.Gamma(2.0, 1.0)), "over vectors"),
    "below a bound": (lambda: from_numpyro(dist.TruncatedNormal(high=2.0), 1), "sbi.constrain"),
    "no distribution": (lambda: from_numpyro(afflow.Normal(2)), "Distribution as distribution"),
    "other shapes": (
        lambda: sbi.constrain(afflow.Normal(2), afflow.bijectors.Exp(3)),
        "one event_shape",
    ),
    "a distribution": (lambda: sbi.simulate(max, afflow.Normal(2), 5, key=KEY), "Flow as prior"),
    "a conditional prior": (
        lambda: sbi.simulate(max, make_conditional(), 5, key=KEY),
        "without a context",
    ),
}


def make_conditional():
    from flax import nnx

    return afflow.made(2, context_dim=1, hidden=(2,), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_arguments(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
