"""Truncated sequential neural posterior estimation."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_number
from afflow._tools.calls import make_typed
from afflow._tools.shapes import check_size
from afflow.models.flow import Flow
from afflow.sbi.posterior_estimation import npe
from afflow.sbi.priors import check_prior
from afflow.sbi.rows import FitOptions, MakeFlow
from afflow.sbi.simulations import Simulations, Simulator, simulate_at
from afflow.training.history import History
from afflow.zoo.autoregressive_flows import nsf

_BATCH = 2**14  # draws of the prior that are tested at a time
_RARE = 1e-3  # a smaller share of accepted draws is resampled from the posterior instead


def tsnpe(
    prior: Flow,
    simulator: Simulator,
    x: jax.Array,
    *,
    key: jax.Array,
    rounds: int = 5,
    simulations: int = 1000,
    quantile: float = 1e-4,
    workers: int = 0,
    flow: MakeFlow = nsf,
    **options: Unpack[FitOptions],
) -> tuple[Flow, History, Simulations]:
    r"""Estimate the posterior of one observation in rounds of ever closer simulations.

    The first round draws parameters from the prior. Each later round draws from the prior truncated
    to the region of highest density of the latest posterior,

    $$\tilde p(\theta) \propto p(\theta)\, \mathbb{1}[q(\theta \mid x_o) > \tau],$$

    with $\tau$ the `quantile` of $q(\theta_i \mid x_o)$ over samples $\theta_i$ of $q$. Each round
    trains on the simulations of all rounds with the loss of `npe`. Within the region the proposals
    are proportional to the prior, so the loss needs no correction.

    Deistler, Goncalves and Macke 2022, arXiv:2210.04815.

    Args:
        prior: the prior.
        simulator: see `simulate`.
        x: the observation $x_o$, `(*x_shape,)`.
        key: a PRNG key.
        rounds: the number of rounds.
        simulations: the number of simulations in a round.
        quantile: the share of posterior samples outside the region.
        workers: see `simulate`.
        flow: see `npe`.
        **options: options of `afflow.fit`. A `checkpoint` has a folder within its folder for each
            round.

    Returns:
        The last posterior, which is accurate near $x_o$ only; the history of its losses; and all
        simulations.

    Raises:
        ValueError: for numbers out of range.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from functools import partial
        >>> prior = afflow.sbi.box([-3.0], [3.0])
        >>> def simulator(key, theta):
        ...     return theta + 0.1 * jax.random.normal(key, (1,))
        >>> posterior, history, made = afflow.sbi.tsnpe(
        ...     prior, simulator, jnp.array([1.0]), key=jax.random.key(0), rounds=2,
        ...     simulations=200, max_epochs=5, progress=False,
        ...     flow=partial(afflow.maf, num_layers=1, hidden=(8,)),
        ... )
        >>> made.theta.shape
        (400, 1)
    """
    check_prior(prior)
    check_size("rounds", rounds)
    check_size("simulations", simulations)
    check_number("quantile", quantile, lambda share: 0 < share < 1, "between 0 and 1")
    x, key = jnp.asarray(x), make_typed(key)
    show = options.get("progress", True)
    checkpoint = options.get("checkpoint")
    folder = Path(checkpoint.folder if checkpoint else "")
    posterior, history, made = None, History([], [], 0), None
    for number in range(rounds):
        draw_key, run_key, fit_key = jax.random.split(jax.random.fold_in(key, number), 3)
        theta = draw_truncated(prior, posterior, x, simulations, key=draw_key, quantile=quantile)
        found = simulate_at(simulator, theta, key=run_key, workers=workers, progress=show)
        made = found if made is None else made.join(found)
        if checkpoint is not None:
            options["checkpoint"] = replace(checkpoint, folder=folder / f"round_{number}")
        posterior, history = npe(prior, made.theta, made.x, key=fit_key, flow=flow, **options)
    assert posterior is not None
    assert made is not None
    return posterior, history, made


def draw_truncated(
    prior: Flow,
    posterior: Flow | None,
    x: jax.Array,
    n: int,
    *,
    key: jax.Array,
    quantile: float,
) -> jax.Array:
    r"""Draw `n` parameters from the prior truncated to the region of a posterior at `x`.

    Draws of the prior are tested one batch after the other. If less than one draw in a thousand is
    accepted, samples of the posterior are resampled with weights $p(\theta) / q(\theta \mid x)$
    instead. Without a posterior the draws are from the prior.
    """
    if posterior is None:
        return prior.sample(key, n)
    least_key, key = jax.random.split(key)
    log_q = posterior.sample_and_log_prob(least_key, _BATCH, x)[1]
    least = jnp.quantile(log_q, quantile)
    kept: list[np.ndarray] = []
    while sum(map(len, kept)) < n:
        key, draw_key = jax.random.split(key)
        theta = prior.sample(draw_key, _BATCH)
        inside = np.asarray(posterior.log_prob(theta, x) > least)
        if inside.mean() < _RARE:
            return resample_truncated(prior, posterior, x, n, key=key, least=least)
        kept.append(np.asarray(theta)[inside])
    return jnp.asarray(np.concatenate(kept)[:n])


def resample_truncated(
    prior: Flow, posterior: Flow, x: jax.Array, n: int, *, key: jax.Array, least: jax.Array
) -> jax.Array:
    """Draw `n` parameters from samples of the posterior, with weights of the truncated prior."""
    draw_key, choose_key = jax.random.split(key)
    theta, log_q = posterior.sample_and_log_prob(draw_key, max(16 * n, _BATCH), x)
    log_weights = jnp.where(log_q > least, prior.log_prob(theta) - log_q, -jnp.inf)
    order = jnp.argsort(log_weights + jax.random.gumbel(choose_key, log_weights.shape))
    return theta[order[-n:]]  # without replacement
