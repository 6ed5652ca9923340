"""Neural posterior estimation: a flow of the parameters given the data."""

from collections.abc import Callable
from typing import Unpack

import jax
from flax import nnx

from afflow._tools.arguments import check_callable
from afflow._tools.calls import make_typed
from afflow.bijectors.compose import Chain
from afflow.bijectors.embedding import Embedded
from afflow.models.flow import Flow
from afflow.sbi.priors import check_prior, check_support
from afflow.sbi.rows import FitOptions, MakeFlow, Summary, take_finite
from afflow.training.fitting import fit
from afflow.training.history import History
from afflow.zoo.autoregressive_flows import nsf


def npe(
    prior: Flow,
    theta: jax.Array,
    x: jax.Array,
    *,
    key: jax.Array,
    flow: MakeFlow = nsf,
    embedding: Callable | None = None,
    **options: Unpack[FitOptions],
) -> tuple[Flow, History]:
    r"""Fit a flow $q(\theta \mid x)$ to simulations; return it and the history of its losses.

    $$\min_q \; \mathbb{E}_{p(\theta)\,p(x \mid \theta)}\big[-\log q(\theta \mid x)\big].$$

    The flow ends in the bijector of the prior, so its density is normalised on the support of the
    prior. It serves every observation: `posterior.sample(key, n, x_o)` and
    `posterior.log_prob(theta, x_o)`.

    Papamakarios and Murray 2016, arXiv:1605.06376; Greenberg et al. 2019, arXiv:1905.07488.

    Args:
        prior: the prior that the parameters were drawn from.
        theta: parameters `(N, D)`.
        x: data `(N, *x_shape)`. Rows with NaN or infinity are left out, with a warning.
        key: a PRNG key for the initial weights and the training.
        flow: makes the flow from `(dim, context_dim=..., data=..., rngs=...)`.
        embedding: a network from one standardised `x` to a vector, trained with the flow. By
            default the context is the standardised `x` as a vector.
        **options: options of `afflow.fit`.

    Raises:
        ValueError: for shapes that do not match, or parameters outside the support of the prior.

    Example:
        >>> import afflow, jax
        >>> from functools import partial
        >>> prior = afflow.sbi.gaussian([0.0, 0.0], [1.0, 1.0])
        >>> def simulator(key, theta):
        ...     return theta + 0.1 * jax.random.normal(key, (2,))
        >>> made = afflow.sbi.simulate(simulator, prior, 500, key=jax.random.key(0), progress=False)
        >>> posterior, history = afflow.sbi.npe(
        ...     prior, made.theta, made.x, key=jax.random.key(1), max_epochs=2, progress=False,
        ...     flow=partial(afflow.maf, num_layers=1, hidden=(8,)),
        ... )
        >>> posterior.sample(jax.random.key(2), 5, made.x[0]).shape
        (5, 2)
    """
    check_prior(prior)
    theta, x = take_finite(theta, x)
    check_support(prior, theta)
    flow_key, fit_key = jax.random.split(make_typed(key))
    posterior = make_posterior(prior, theta, x, flow, embedding, nnx.Rngs(flow_key))
    return fit(posterior, theta, context=x, key=fit_key, **options)


def make_posterior(
    prior: Flow,
    theta: jax.Array,
    x: jax.Array,
    flow: MakeFlow,
    embedding: Callable | None,
    rngs: nnx.Rngs,
) -> Flow:
    """Return a flow of `theta` given `x` before training, standardised by the simulations."""
    check_callable("flow", flow, "afflow.nsf")
    if embedding is not None:
        check_callable("embedding", embedding, "nnx.Sequential(...)")
    summary = Summary(x, embedding)
    z = jax.jit(jax.vmap(prior.bijector.inverse))(theta)
    inner = flow(z.shape[1], context_dim=summary.size, data=z, rngs=rngs)
    bijector = Chain([inner.bijector, prior.bijector])
    return Flow(inner.base, Embedded(bijector, summary, summary.x_shape))
