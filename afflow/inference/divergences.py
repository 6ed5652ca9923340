"""What to minimise to bring a flow to an unnormalised density, each as a function."""

import math
from typing import Protocol

import jax
import jax.numpy as jnp

from afflow.inference.importance import LogDensity, importance_weights, target_log_density
from afflow.models.flow import Flow


class Divergence(Protocol):
    """An estimate, in nats, of what `fit_to_density` minimises, from samples of the flow.

    Its derivative with respect to the flow is the gradient to follow. With a `context`
    `(B, *context_shape)` it draws `num_samples` for each and returns the mean over them.
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

    Samples and their densities come from one sweep of the flow. The gradient stays noisy
    even where the flow equals the target: prefer `sticking_the_landing`.
    Rezende and Mohamed 2015, arXiv:1505.05770.

    Args:
        flow: the approximation $q$, on a base that samples by a differentiable map.
        log_density: $\log\tilde p$ of one event, `log_density(x)` or `log_density(x, context)`.
        key: a PRNG key.
        num_samples: samples to draw, for each context.
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
    r"""Estimate what `reverse_kl` does, with the gradient through the path of samples only.

    $$\nabla_\theta = \mathbb{E}_z\big[\partial_x \big(\log q_{\theta'}(x) -
    \log \tilde p(x)\big)\, \partial_\theta f_\theta(z)\big],
    \qquad x = f_\theta(z),\ \theta' = \theta \text{ held fixed}.$$

    The omitted term has mean zero. Each sample's gradient vanishes where the flow equals the
    target, so close to it there is no noise. It needs both directions of the flow, the serial
    one among them for MAF as for IAF: about twice the work of `reverse_kl`.
    Roeder et al. 2017, arXiv:1703.09194; for flows Vaitl et al. 2022, arXiv:2207.08219.
    The arguments are described at `reverse_kl`.

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

    The bound grows with `K` and asks less of the flow, which comes to cover more of the target
    as a proposal for importance sampling. The gradient gets noisier with `K`, and training
    slower: keep it small, and prefer `doubly_reparameterized`.
    Burda et al. 2016, arXiv:1509.00519.

    Args:
        flow: the proposal $q$, on a base that samples by a differentiable map.
        log_density: $\log\tilde p$ of one event, `log_density(x)` or `log_density(x, context)`.
        key: a PRNG key.
        num_samples: samples to draw, for each context.
        context: `(B, *context_shape)`.
        group: `K`, a divisor of `num_samples`; the bound is averaged over groups of so many.

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
    return -_bounds(_grouped(log_w, group)).mean()


def doubly_reparameterized(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
    *,
    group: int = 8,
) -> jax.Array:
    r"""Estimate what `importance_weighted` does, with the gradient through the path only.

    $$\nabla_\theta = -\mathbb{E}\Big[\sum_i \bar w_i^2\, \partial_x \log w_{\theta'}(x_i)\,
    \partial_\theta f_\theta(z_i)\Big], \qquad \bar w_i = w_i / \textstyle\sum_j w_j.$$

    With `group=1` it is `sticking_the_landing`; the arguments are those of
    `importance_weighted`. Tucker et al. 2019, arXiv:1810.04152.

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
    log_w = _grouped(_path_log_weights(flow, log_density, key, num_samples, context), group)
    squares = jnp.square(jax.nn.softmax(jax.lax.stop_gradient(log_w), axis=1))
    path = (squares * log_w).sum(1).mean()
    return -_with_gradient_of(path, _bounds(log_w).mean())


def forward_kl(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
) -> jax.Array:
    r"""Estimate $\mathrm{KL}(p \,\|\, q)$ by importance sampling from the flow itself.

    $$\mathrm{KL}(p \,\|\, q) \approx \sum_i \bar w_i \log(S \bar w_i), \qquad
    \nabla_\theta \approx -\sum_i \bar w_i \nabla_\theta \log q_\theta(x_i),
    \qquad \bar w_i = w_i / \textstyle\sum_j w_j.$$

    It punishes a flow that is too narrow where `reverse_kl` punishes one that is too wide,
    and needs no derivative of samples or of the target: any base will do. Self-normalised
    weights are biased by the order of 1 / ESS, and the value never exceeds $\log S$: start
    from a flow that overlaps the target, one fitted by `sticking_the_landing` for instance.
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
    """Return log-weights that depend on the flow's parameters through its samples alone."""
    x = flow.sample(key, num_samples, context)
    log_q = jax.tree.map(jax.lax.stop_gradient, flow).log_prob(x, context)
    return target_log_density(flow, log_density, x, context) - log_q


def _with_gradient_of(source, value):
    """Return `value` with the derivatives of `source`."""
    return jax.lax.stop_gradient(value) + source - jax.lax.stop_gradient(source)


def _bounds(log_w):
    """Return the importance-weighted bound of each group: `(G, K, ...)` to `(G, ...)`."""
    return jax.nn.logsumexp(log_w, axis=1) - math.log(log_w.shape[1])


def _grouped(log_w, group):
    return log_w.reshape(-1, group, *log_w.shape[1:])


def _check_group(group, num_samples):
    if group < 1 or num_samples % group:
        raise ValueError(f"Expected a group that divides num_samples={num_samples}, got {group}.")
