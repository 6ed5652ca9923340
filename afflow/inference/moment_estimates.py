"""The mean, variance and entropy of a flow, estimated from samples."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.shapes import check_size
from afflow.inference.importance import Estimate, check_arrays
from afflow.models.flow import Flow


class Moments(NamedTuple):
    """The mean and variance of every coordinate, and the entropy in nats."""

    mean: Estimate
    variance: Estimate
    entropy: Estimate


def moments(
    flow: Flow,
    *,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
    chunk: int | None = None,
) -> Moments:
    r"""Estimate the mean, variance and entropy of a flow, with standard errors.

    $$\mu = \mathbb{E}[x], \qquad \sigma^2 = \mathbb{E}[(x - \mu)^2], \qquad
    H = -\mathbb{E}[\log p(x)].$$

    A distribution with heavy tails may have no mean or variance. The estimates then do not
    converge, whatever the standard errors say.

    Args:
        flow: the flow.
        key: a PRNG key for the samples.
        num_samples: the number of samples `S` for each context, at least 2.
        context: `(*context_batch, *context_shape)` for a conditional flow.
        chunk: the number of samples to draw at a time, to save memory; by default all.

    Returns:
        Estimates `(*context_batch, *event_shape)` of mean and variance, and an estimate
        `(*context_batch)` of the entropy.

    Raises:
        ValueError: for fewer than 2 samples, or samples that are a table with names or text.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(1), afflow.Reverse(1))
        >>> found = afflow.inference.moments(flow, key=jax.random.key(0), num_samples=10_000)
        >>> round(found.entropy.value.item(), 1)  # log(2 pi e) / 2
        1.4
    """
    check_size("num_samples", num_samples, least=2)
    x, log_prob = flow.sample_and_log_prob(key, num_samples, context, chunk=chunk)
    check_arrays(x, "take the statistics of the table, flow.sample(key, n).describe() say")
    if isinstance(x, np.ndarray) and x.dtype == object:
        raise ValueError("Expected samples that are numbers, got a table with text.")
    deviations = x - x.mean(0, keepdims=True)
    variance = (deviations**2).sum(0) / (num_samples - 1)
    spread = (deviations**4).mean(0) - variance**2
    of_variance = jnp.sqrt(jnp.maximum(spread, 0) / num_samples)
    return Moments(
        Estimate(x.mean(0), jnp.sqrt(variance / num_samples)),
        Estimate(variance, of_variance),
        Estimate(-log_prob.mean(0), log_prob.std(0, ddof=1) / math.sqrt(num_samples)),
    )
