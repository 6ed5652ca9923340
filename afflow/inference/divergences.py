"""Objectives that bring a flow close to an unnormalised density, each a function."""

import math
from typing import Protocol

import jax
import jax.numpy as jnp

from afflow._tools.numerics import log_mean_exp
from afflow.inference.importance import LogDensity, importance_weights, target_log_density
from afflow.models.flow import Flow


class Divergence(Protocol):
    """An objective of `fit_to_density`: an estimate, in nats, from samples of the flow.

    The derivative of the estimate with respect to the flow is the gradient of training. With a
    `context` `(B, *context_shape)` the objective draws `num_samples` for each context and returns
    the mean over contexts.
    """

    def __call__(
        self,
        flow: Flow,
        log_density: LogDensity,
        key: jax.Array,
        num_samples: int,
        context: jax.Array | None = None,
    ) -> jax.Array: ...


def reverse_kl(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
) -> jax.Array:
    r"""Estimate minus the evidence lower bound, with the plain reparametrised gradient.

    $$-\mathrm{ELBO} = \mathbb{E}_q[\log q(x) - \log \tilde p(x)]
    = \mathrm{KL}(q \,\|\, p) - \log Z.$$

    Samples and their densities come from one pass of the flow. The gradient stays noisy even if the
    flow equals the target: prefer `sticking_the_landing`. Rezende and Mohamed 2015,
    arXiv:1505.05770.

    Args:
        flow: the approximation $q$. Its base must sample by a differentiable map.
        log_density: $\log\tilde p$ of one event, `log_density(x)` or `log_density(x, context)`.
        key: a PRNG key.
        num_samples: the number of samples for each context.
        context: `(B, *context_shape)`.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> loss = afflow.inference.reverse_kl(flow, lambda x: -0.5 * x @ x, jax.random.key(0), 10)
        >>> round(loss.item(), 4)  # -log(2 pi)
        -1.8379
    """
    _, log_w = importance_weights(
        flow, log_density, key=key, num_samples=num_samples, context=context
    )
    return -log_w.mean()


def sticking_the_landing(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
) -> jax.Array:
    r"""Estimate minus the evidence lower bound, with the gradient through the samples only.

    $$\nabla_\theta = \mathbb{E}_z\big[\partial_x \big(\log q_{\theta'}(x) -
    \log \tilde p(x)\big)\, \partial_\theta f_\theta(z)\big],
    \qquad x = f_\theta(z),\ \theta' = \theta \text{ held fixed}.$$

    The value is the value of `reverse_kl`. The gradient omits a term with mean zero. If the flow
    equals the target, the gradient of each sample is zero. Close to the target the gradient
    therefore has almost no noise. The objective needs both directions of the flow, hence the serial
    direction for MAF as well as for IAF: about twice the work of `reverse_kl`. The arguments are
    described at `reverse_kl`. Roeder et al. 2017, arXiv:1703.09194; for flows Vaitl et al. 2022,
    arXiv:2207.08219.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.Affine(), 2))
        >>> gradient = jax.grad(afflow.inference.sticking_the_landing)(
        ...     flow, lambda x: -0.5 * x @ x, jax.random.key(0), 10
        ... )
        >>> jnp.abs(gradient.bijector.params[...]).max().item()
        0.0
    """
    return -_path_log_weights(flow, log_density, key, num_samples, context).mean()


def importance_weighted(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
    *,
    group: int = 8,
) -> jax.Array:
    r"""Estimate minus the importance-weighted bound of `K` samples, with its plain gradient.

    $$\mathrm{ELBO} \le \mathbb{E}\Big[\log \tfrac1K \sum_{i \le K} w_i\Big] \le \log Z,
    \qquad w_i = \tilde p(x_i) / q(x_i),\ x_i \sim q.$$

    The bound grows with `K`. A flow trained on a larger `K` covers more of the target and is a
    better proposal for importance sampling. But the gradient gets noisier with `K`, and training
    slower. Keep `K` small, and prefer `doubly_reparameterized`. Burda et al. 2016,
    arXiv:1509.00519.

    Args:
        flow: the proposal $q$. Its base must sample by a differentiable map.
        log_density: $\log\tilde p$ of one event, `log_density(x)` or `log_density(x, context)`.
        key: a PRNG key.
        num_samples: the number of samples for each context.
        context: `(B, *context_shape)`.
        group: `K`, a divisor of `num_samples`. The bound is averaged over groups of `K` samples.

    Raises:
        ValueError: if `group` does not divide `num_samples`.

    Example:
        >>> import afflow, functools, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> objective = functools.partial(afflow.inference.importance_weighted, group=5)
        >>> round(objective(flow, lambda x: -0.5 * x @ x, jax.random.key(0), 10).item(), 4)
        -1.8379
    """
    _check_group(group, num_samples)
    _, log_w = importance_weights(
        flow, log_density, key=key, num_samples=num_samples, context=context
    )
    return -_compute_bounds(_group(log_w, group)).mean()


def doubly_reparameterized(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
    *,
    group: int = 8,
) -> jax.Array:
    r"""Estimate minus the importance-weighted bound, with the gradient through the samples only.

    $$\nabla_\theta = -\mathbb{E}\Big[\sum_i \bar w_i^2\, \partial_x \log w_{\theta'}(x_i)\,
    \partial_\theta f_\theta(z_i)\Big], \qquad \bar w_i = w_i / \textstyle\sum_j w_j.$$

    The value is the value of `importance_weighted`, and so are the arguments and errors. With
    `group=1` the objective is `sticking_the_landing`. Tucker et al. 2019, arXiv:1810.04152.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> loss = afflow.inference.doubly_reparameterized(
        ...     flow, lambda x: -0.5 * x @ x, jax.random.key(0), 16
        ... )
        >>> round(loss.item(), 4)
        -1.8379
    """
    _check_group(group, num_samples)
    log_w = _group(_path_log_weights(flow, log_density, key, num_samples, context), group)
    bounded = jnp.maximum(log_w, jnp.finfo(log_w.dtype).min)  # a group may have no weight at all
    squares = jnp.square(jax.nn.softmax(jax.lax.stop_gradient(bounded), axis=1))
    path = (squares * jnp.where(jnp.isneginf(log_w), 0, log_w)).sum(1).mean()
    return -_with_gradient_of(path, _compute_bounds(log_w).mean())


def forward_kl(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
) -> jax.Array:
    r"""Estimate $\mathrm{KL}(p \,\|\, q)$ by importance sampling with the flow as the proposal.

    $$\mathrm{KL}(p \,\|\, q) \approx \sum_i \bar w_i \log(S \bar w_i), \qquad
    \nabla_\theta \approx -\sum_i \bar w_i \nabla_\theta \log q_\theta(x_i),
    \qquad \bar w_i = w_i / \textstyle\sum_j w_j.$$

    This divergence is large for a flow that is too narrow; `reverse_kl` is large for a flow that is
    too wide. It needs no derivative of the samples or of the target, so any base works.
    Self-normalised weights have a bias of order 1 / ESS, and the value never exceeds $\log S$.
    Start from a flow that overlaps the target, for example a flow fitted by `sticking_the_landing`.
    Müller et al. 2019, arXiv:1808.03856. The arguments are described at `reverse_kl`.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> loss = afflow.inference.forward_kl(flow, lambda x: -0.5 * x @ x, jax.random.key(0), 10)
        >>> abs(round(loss.item(), 4))
        0.0
    """
    x = jax.lax.stop_gradient(flow.sample(key, num_samples, context))
    log_q = flow.log_prob(x, context)
    log_w = target_log_density(flow, log_density, x, context) - log_q
    log_shares = jax.nn.log_softmax(jax.lax.stop_gradient(log_w), axis=0)
    shares = jnp.exp(log_shares)
    value = jnp.sum(shares * jnp.where(shares > 0, log_shares + math.log(num_samples), 0), axis=0)
    return _with_gradient_of(-(shares * log_q).sum(0).mean(), value.mean())


def _path_log_weights(flow, log_density, key, num_samples, context):
    """Return log-weights that depend on the flow's parameters through the samples only."""
    x = flow.sample(key, num_samples, context)
    log_q = jax.tree.map(jax.lax.stop_gradient, flow).log_prob(x, context)
    return target_log_density(flow, log_density, x, context) - log_q


def _with_gradient_of(source, value):
    """Return the value of `value` with the derivatives of `source`."""
    return jax.lax.stop_gradient(value) + source - jax.lax.stop_gradient(source)


def _compute_bounds(log_w):
    """Return the importance-weighted bound of each group: `(G, K, ...)` to `(G, ...)`."""
    return log_mean_exp(log_w, axis=1)


def _group(log_w, group):
    return log_w.reshape(-1, group, *log_w.shape[1:])


def _check_group(group, num_samples):
    if group < 1 or num_samples % group:
        raise ValueError(f"Expected a group that divides num_samples={num_samples}, got {group}.")
