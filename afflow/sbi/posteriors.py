"""The posterior of a prior, a likelihood or ratio, and one or several observations."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_callable, check_number
from afflow._tools.arrays import to_device
from afflow._tools.calls import check_floating, make_typed
from afflow._tools.constants import Constant
from afflow._tools.lowering import use_float32_products
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_size
from afflow.models.flow import Flow
from afflow.sbi.priors import check_prior
from afflow.sbi.ratio_estimation import RatioEstimator
from afflow.sbi.tempering import temper
from afflow.training.ensemble import Ensemble

Likelihood = Flow | Ensemble | RatioEstimator | Callable[[jax.Array, jax.Array], jax.Array]

_PARTICLES = 2000


class Posterior(Outlined, nnx.Module):
    r"""The posterior of a prior, a likelihood or ratio, and observations, up to a constant.

    $$\log \tilde p(\theta \mid x_1, \dots, x_n) = \log p(\theta)
    + \sum_{i=1}^{n} \log q(x_i \mid \theta).$$

    The observations are independent given the parameters. Samples come from adaptive tempering of
    a cloud of particles, which finds several modes.

    Args:
        prior: the prior.
        likelihood: a flow of `x` given `theta` (`nle`), or an `Ensemble` of such flows; a
            `RatioEstimator` (`nre`); or a function
            `likelihood(theta, x)` that returns the log-likelihood of one parameter vector.
        x: one observation `(*x_shape,)`, or several, `(n, *x_shape)`. A function gets all of `x`.

    Raises:
        ValueError: if the shapes of prior, likelihood and observations disagree.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> prior = afflow.sbi.gaussian([0.0], [1.0])
        >>> posterior = afflow.sbi.Posterior(
        ...     prior, lambda theta, x: -0.5 * ((theta - x) ** 2).sum(), jnp.array([2.0])
        ... )
        >>> theta = posterior.sample(jax.random.key(0), 1000)
        >>> theta.shape, bool(abs(theta.mean() - 1) < 0.1)
        ((1000, 1), True)
    """

    def __init__(self, prior: Flow, likelihood: Likelihood, x: Any):
        check_prior(prior)
        check_callable_or_model(likelihood)
        x = to_device("x", x, float)
        if not np.isfinite(x).all():
            raise ValueError("Expected finite observations, got NaN or infinity.")
        self.prior, self.likelihood = prior, likelihood
        shape = _find_x_shape(likelihood, x.shape)
        check_floating("x", x, shape)
        if x.ndim > len(shape) + 1:
            raise ValueError(f"Expected x.shape {shape} or {('n', *shape)}, got {x.shape}.")
        self.x = Constant(x.reshape(-1, *shape))
        self.event_shape = prior.event_shape

    def log_prob(self, theta: jax.Array) -> jax.Array:
        r"""Return $\log \tilde p(\theta \mid x)$, unnormalised, for `theta` `(..., D)`.

        It is $-\infty$ outside the support of the prior.
        """
        theta = check_floating("theta", jnp.asarray(theta), self.event_shape)
        flat = theta.reshape(-1, *self.event_shape)
        return _log_prob(self, flat).reshape(theta.shape[:-1])

    def sample(
        self,
        key: jax.Array,
        n: int,
        *,
        proposal: Flow | None = None,
        num_moves: int = 20,
        ess: float = 0.5,
    ) -> jax.Array:
        """Draw `n` samples `(n, D)` by sequential Monte Carlo (BlackJAX, extra `sbi`).

        The particles start from the prior, or from a proposal. All modes to be found must have
        particles at the start.

        Args:
            key: a PRNG key.
            n: the number of samples. There are as many particles, and at least 2000.
            proposal: a flow of `theta` given one observation (`npe`), to start from.
            num_moves: the number of Metropolis steps at each temperature.
            ess: the effective sample size at each temperature, as a fraction of the particles.

        Raises:
            ValueError: for numbers out of range, or a proposal for several observations.
        """
        check_size("n", n)
        check_size("num_moves", num_moves)
        check_number("ess", ess, lambda share: 0 < share < 1, "between 0 and 1")
        if proposal is not None and len(self.x) > 1:
            raise ValueError(f"Expected one observation for a proposal, got {len(self.x)}.")
        return _sample(self, make_typed(key), proposal, n, num_moves, ess)

    def score(self, theta: jax.Array) -> jax.Array:
        """Return the log-likelihood of all observations for one parameter vector `(D,)`."""

        def add(total, x):
            return total + self._score_one(theta, x), None

        return jax.lax.scan(add, jnp.zeros((), theta.dtype), self.x[...])[0]

    def _score_one(self, theta: jax.Array, x: jax.Array) -> jax.Array:
        likelihood: Any = self.likelihood
        kind = _get_member(likelihood)
        if isinstance(kind, Flow):
            value = likelihood.log_prob(x, theta)
        elif isinstance(kind, RatioEstimator):
            value = likelihood.log_prob(theta, x)
        else:
            value = likelihood(theta, x)
        return value.astype(theta.dtype)


def check_callable_or_model(likelihood: Any) -> None:
    """Raise `ValueError` unless `likelihood` is a model or a function of two arguments."""
    likelihood = _get_member(likelihood)
    if isinstance(likelihood, Flow | RatioEstimator):
        if likelihood.context_shape is None:
            raise ValueError("Expected a likelihood given theta, got a flow without a context.")
        return
    check_callable("likelihood", likelihood, "a flow of nle, or lambda theta, x: ...", 2)


def _get_member(likelihood: Any) -> Any:
    """Return the members of an ensemble, stacked in one model, or the likelihood itself."""
    return likelihood.members if isinstance(likelihood, Ensemble) else likelihood


def _find_x_shape(likelihood: Any, given: Shape) -> Shape:
    """Return the shape of one observation."""
    likelihood = _get_member(likelihood)
    if isinstance(likelihood, Flow):
        return likelihood.event_shape
    return likelihood.context_shape if isinstance(likelihood, RatioEstimator) else given


@jax.jit
def _log_prob(posterior: Posterior, theta: jax.Array) -> jax.Array:
    """Return the unnormalised log-density of each row of `theta` `(N, D)`."""
    prior = posterior.prior.log_prob(theta)
    outside = jnp.isneginf(prior)
    inside = jax.vmap(posterior.prior.bijector.forward)(jnp.zeros_like(theta))
    score = jax.vmap(posterior.score)(jnp.where(outside[:, None], inside, theta))
    return jnp.where(outside, prior, prior + score)


@partial(jax.jit, static_argnames=("n", "num_moves"))
def _sample(posterior, key, proposal, n, num_moves, ess):
    """Draw `n` samples, by tempering in the coordinates of the base of the prior."""
    prior = posterior.prior
    start_key, move_key, choose_key = jax.random.split(key, 3)
    num = max(n, _PARTICLES)

    def target(z):
        return prior.base.log_prob(z), posterior.score(prior.bijector.forward(z))

    if proposal is None:
        log_start, log_ratio = lambda z: target(z)[0], lambda z: target(z)[1]
        z = jax.vmap(prior.base.sample)(jax.random.split(start_key, num))
    else:
        log_start = partial(_pull, prior, proposal, posterior.x[0])
        log_ratio = lambda z: sum(target(z)) - log_start(z)  # noqa: E731
        z = jax.vmap(prior.bijector.inverse)(proposal.sample(start_key, num, posterior.x[0]))
    with use_float32_products():
        z = temper(move_key, z, log_start, log_ratio, num_moves=num_moves, ess=ess)
    theta = jax.vmap(prior.bijector.forward)(z)
    return theta if num == n else jax.random.choice(choose_key, theta, (n,), replace=False)


def _pull(prior: Flow, proposal: Flow, x: jax.Array, z: jax.Array) -> jax.Array:
    """Return the log-density of a proposal in the coordinates of the base of the prior."""
    theta, log_det = prior.bijector.forward_and_log_det(z)
    return proposal.log_prob(theta, x) + log_det
