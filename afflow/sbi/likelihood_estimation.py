"""Neural likelihood estimation: a flow of the data given the parameters."""

from typing import Unpack

import jax
from flax import nnx

from afflow._tools.arguments import check_callable
from afflow._tools.calls import make_typed
from afflow.models.flow import Flow
from afflow.sbi.rows import FitOptions, MakeFlow, take_finite
from afflow.training.fitting import fit
from afflow.training.history import History
from afflow.zoo.autoregressive_flows import nsf


def nle(
    theta: jax.Array,
    x: jax.Array,
    *,
    key: jax.Array,
    flow: MakeFlow = nsf,
    **options: Unpack[FitOptions],
) -> tuple[Flow, History]:
    r"""Fit a flow $q(x \mid \theta)$ to simulations; return it and the history of its losses.

    $$\min_q \; \mathbb{E}_{\tilde p(\theta)\,p(x \mid \theta)}\big[-\log q(x \mid \theta)\big].$$

    The parameters may come from any $\tilde p(\theta)$ that covers the prior. `Posterior` combines
    the likelihood with a prior and with one or several observations.

    Papamakarios et al. 2019, arXiv:1805.07226.

    Args:
        theta: parameters `(N, D)`.
        x: data `(N, K)`. Rows with NaN or infinity are left out, with a warning.
        key: a PRNG key for the initial weights and the training.
        flow: makes the flow from `(dim, context_dim=..., data=..., rngs=...)`.
        **options: options of `afflow.fit`.

    Raises:
        ValueError: for shapes that do not match, or data that are not vectors.

    Example:
        >>> import afflow, jax
        >>> from functools import partial
        >>> theta = jax.random.normal(jax.random.key(0), (500, 1))
        >>> x = theta + 0.1 * jax.random.normal(jax.random.key(1), (500, 1))
        >>> likelihood, history = afflow.sbi.nle(
        ...     theta, x, key=jax.random.key(2), max_epochs=2, progress=False,
        ...     flow=partial(afflow.maf, num_layers=1, hidden=(8,)),
        ... )
        >>> likelihood.log_prob(x, theta).shape
        (500,)
    """
    theta, x = take_finite(theta, x)
    if x.ndim != 2:
        raise ValueError(f"Expected x.shape (N, K), got {x.shape}: flatten the data of a row.")
    check_callable("flow", flow, "afflow.nsf")
    flow_key, fit_key = jax.random.split(make_typed(key))
    likelihood = flow(
        x.shape[1], context_dim=theta.shape[1], data=(x, theta), rngs=nnx.Rngs(flow_key)
    )
    return fit(likelihood, x, context=theta, key=fit_key, **options)
