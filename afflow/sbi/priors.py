r"""Priors: flows without training, whose bijector maps the reals onto the support.

A prior is a `Flow` $\theta = T(z)$, with a base over all reals and a bijector $T$ onto the support.
A posterior that ends in the same bijector has no mass outside the support. Any other flow over
vectors is a prior too, such as a flow that was fitted to samples.
"""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.typing import ArrayLike

from afflow._tools.arguments import check_instance, check_instances
from afflow.bijectors.blockwise import Blockwise
from afflow.bijectors.compose import Chain
from afflow.bijectors.domains import Exp, Probit
from afflow.bijectors.elementwise import Standardize
from afflow.core.bijector import Bijector, of_one_event
from afflow.core.distribution import Distribution
from afflow.distributions.mixtures import Product
from afflow.distributions.standard import Normal
from afflow.models.flow import Flow


def box(low: ArrayLike, high: ArrayLike) -> Flow:
    r"""Return the uniform prior on a box, $\theta_i = a_i + (b_i - a_i)\,\Phi(z_i)$.

    Args:
        low: lower ends $a$, `(D,)`.
        high: upper ends $b > a$, `(D,)`.

    Raises:
        ValueError: if the shapes differ, or the ends are not finite with `low < high`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> prior = afflow.sbi.box([0.0, 0.0], [1.0, 2.0])
        >>> round(prior.log_prob(jnp.array([0.5, 0.5])).item(), 4)  # log(1 / 2)
        -0.6931
        >>> prior.log_prob(jnp.array([0.5, 3.0])).item()
        -inf
    """
    _check_vectors(low=low, high=high)
    return Flow(Normal(len(np.asarray(low))), Probit(low, high))


def gaussian(mean: ArrayLike, std: ArrayLike) -> Flow:
    r"""Return independent normals, $\theta_i = \mu_i + \sigma_i z_i$.

    Args:
        mean: means $\mu$, `(D,)`.
        std: standard deviations $\sigma > 0$, `(D,)`.

    Raises:
        ValueError: if the shapes differ, or a standard deviation is not positive and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> prior = afflow.sbi.gaussian([0.0, 5.0], [1.0, 2.0])
        >>> round(prior.log_prob(jnp.array([0.0, 5.0])).item(), 4)
        -2.531
    """
    _check_vectors(mean=mean, std=std)
    return Flow(Normal(len(np.asarray(mean))), Standardize(mean, std))


def lognormal(mean: ArrayLike, std: ArrayLike) -> Flow:
    r"""Return independent log-normals, $\log\theta_i = \mu_i + \sigma_i z_i$.

    Args:
        mean: means $\mu$ of the logarithms, `(D,)`.
        std: standard deviations $\sigma > 0$ of the logarithms, `(D,)`.

    Raises:
        ValueError: if the shapes differ, or a standard deviation is not positive and finite.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> prior = afflow.sbi.lognormal([0.0], [1.0])
        >>> round(prior.log_prob(jnp.array([1.0])).item(), 4)
        -0.9189
    """
    normal = gaussian(mean, std)
    return Flow(normal.base, Chain([normal.bijector, Exp(normal.event_shape)]))


def independent(priors: Sequence[Flow]) -> Flow:
    r"""Return the product of independent priors, $p(\theta) = \prod_k p_k(\theta_{B_k})$.

    Args:
        priors: priors of vectors. Prior $k$ has the coordinates $B_k$ that follow prior $k - 1$.

    Raises:
        ValueError: if `priors` is empty, or holds anything but priors of vectors.

    Example:
        >>> import afflow, jax
        >>> rate, place = afflow.sbi.lognormal([0.0], [1.0]), afflow.sbi.box([-1.0], [1.0])
        >>> afflow.sbi.independent([rate, place]).sample(jax.random.key(0)).shape
        (2,)
    """
    check_instances("priors", priors, Flow)
    base = Product([prior.base for prior in priors])
    ends = np.cumsum([0, *(prior.event_shape[0] for prior in priors)])
    blocks = [range(*pair) for pair in zip(ends[:-1], ends[1:], strict=True)]
    maps = [prior.bijector for prior in priors]
    return Flow(base, Blockwise(int(ends[-1]), maps, blocks))


def constrain(distribution: Distribution, to_support: Bijector) -> Flow:
    r"""Return a distribution as a prior, given a bijector from the reals onto its support.

    Args:
        distribution: the distribution of $\theta$, `(D,)`.
        to_support: the bijector $T$ from the reals onto the support of the distribution.

    Raises:
        ValueError: unless the event shapes agree.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> cauchy = afflow.distributions.StudentT(1, 1.0, learn_df=False)
        >>> anywhere = afflow.bijectors.Permutation([0])
        >>> prior = afflow.sbi.constrain(cauchy, anywhere)
        >>> round(jnp.exp(prior.log_prob(jnp.ones(1))).item() * jnp.pi, 4)
        0.5
    """
    check_instance("distribution", distribution, Distribution)
    check_instance("to_support", to_support, Bijector)
    return Flow(Pulled(distribution, nnx.clone(to_support)), to_support)


class Pulled(Distribution):
    r"""The distribution of $T^{-1}(\theta)$ for a distribution of $\theta$ and a bijector $T$.

    $$\log p(z) = \log p_\theta(T(z)) + \log|\det J_T(z)|.$$

    Args:
        distribution: the distribution of $\theta$.
        bijector: the map $T$.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> line = afflow.sbi.Pulled(afflow.Uniform(1), afflow.bijectors.Interval([0.0], [1.0]))
        >>> round(line.log_prob(jnp.zeros(1)).item(), 4)  # logistic: log(1 / 4)
        -1.3863
    """

    def __init__(self, distribution: Distribution, bijector: Bijector):
        self.distribution = distribution
        self.bijector = bijector
        self.event_shape, self.context_shape = distribution.event_shape, None

    @of_one_event
    def log_prob(self, x, context=None):
        theta, log_det = self.bijector.forward_and_log_det(x)
        return self.distribution.log_prob(theta) + log_det

    def sample(self, key, context=None):
        return self.bijector.inverse(self.distribution.sample(key))


def check_prior(prior: Flow) -> None:
    """Raise `ValueError` unless `prior` is a flow over vectors without a context."""
    check_instance("prior", prior, Flow)
    if len(prior.event_shape) != 1 or prior.context_shape is not None:
        raise ValueError(
            f"Expected a prior over vectors without a context, got event_shape "
            f"{prior.event_shape} and context_shape {prior.context_shape}."
        )


def check_support(prior: Flow, theta: jax.Array) -> None:
    """Raise `ValueError` if a row of `theta` `(N, D)` lies outside the support of the prior."""
    outside = np.flatnonzero(np.isneginf(prior.log_prob(theta)))
    if len(outside):
        raise ValueError(
            f"Expected theta within the support of the prior, got {len(outside)} of {len(theta)} "
            f"rows outside, row {outside[0]} with {np.asarray(theta[outside[0]])} say. The ends of "
            "a box are outside."
        )


def _check_vectors(**values: ArrayLike) -> None:
    for name, value in values.items():
        if np.ndim(value) != 1:
            raise ValueError(f"Expected {name}.shape (D,), got {np.shape(value)}.")
