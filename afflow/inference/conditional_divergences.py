"""Objectives of distillation that compare the conditionals of a student and a teacher."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from afflow._tools.arguments import check_number
from afflow._tools.calls import check_context
from afflow._tools.shapes import check_size
from afflow.inference.conditional_maps import (
    check_affine,
    get_log_probs,
    read_conditionals,
    read_gaussians,
    run_and_record,
)
from afflow.inference.importance import LogDensity
from afflow.inference.teachers import get_teacher
from afflow.models.flow import Flow


def conditional_kl(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
    *,
    num_draws: int = 8,
) -> jax.Array:
    r"""Estimate $\mathrm{KL}(q \,\|\, p)$ with several draws of every token after one prefix.

    $$\mathrm{KL}(q \,\|\, p) = \mathbb{E}_q \sum_t
    \mathbb{E}_{v_t \sim q(\cdot \mid x_{<t})}
    \big[\log q(v_t \mid x_{<t}) - \log p(v_t \mid x_{<t})\big].$$

    The networks of the student and of the teacher run once for a sample $x$. The draws $v_t$ need
    no network: they are the images of new noise under the maps of the student's tokens, and their
    densities follow from the parameters of the teacher at $x_{<t}$. The student is a stack of
    inverse autoregressive layers in one order, so that $q(v_t \mid x_{<t})$ is the base pushed
    through one scalar map. The noise's log-density does not depend on the student's layers. Its
    gradient is zero, as is the gradient of the entropy of the base, which Parallel WaveNet puts in
    its place. The sampled log-density is kept because it makes the value exact for a student that
    equals the teacher.

    van den Oord et al. 2017, arXiv:1711.10433.

    Args:
        flow: the student $q$, with a base of independent coordinates.
        log_density: the teacher $p$ as a `ModelDensity`: an `AutoregressiveModel` in the natural
            order, or a `Flow` of autoregressive layers in one order.
        key: a PRNG key.
        num_samples: the number of samples $x$ for each context.
        context: `(B, *context_shape)`.
        num_draws: the number of draws $v_t$ for each prefix.

    Raises:
        ValueError: for a student or a teacher whose conditionals need more than one pass.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> teacher = afflow.made(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> student = afflow.iaf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(1))
        >>> density = afflow.inference.ModelDensity(teacher)
        >>> loss = afflow.inference.conditional_kl(student, density, jax.random.key(0), 10)
        >>> abs(round(loss.item(), 4))  # both are still standard normal
        0.0
    """
    check_size("num_draws", num_draws)
    teacher = get_teacher(log_density)

    def find_divergence(key, context):
        z_key, draws_key = jax.random.split(key)
        x, to_data = _sample(flow, z_key, context)
        find_log_p = read_conditionals(teacher, x, context)
        noise = jax.vmap(flow.base.sample)(jax.random.split(draws_key, num_draws))  # (K, T, ...)
        v, log_slopes = jax.vmap(to_data)(noise)
        log_q = jax.vmap(get_log_probs(flow.base))(noise) - log_slopes
        return (log_q.sum() - jax.vmap(find_log_p)(v).sum()) / num_draws

    return _average(find_divergence, flow, key, num_samples, context)


def gaussian_kl(
    flow: Flow,
    log_density: LogDensity,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
    *,
    weight: float = 4.0,
) -> jax.Array:
    r"""Estimate the regularised divergence of normal conditionals, exact after every prefix.

    $$\mathbb{E}_q \sum_t \mathrm{KL}\big(\mathcal{N}(\mu_q, \sigma_q^2) \,\|\,
    \mathcal{N}(\mu_p, \sigma_p^2)\big) + \lambda (\log\sigma_q - \log\sigma_p)^2,$$

    where $\mu$ and $\sigma$ depend on the prefix $x_{<t}$. The second term keeps the gradient
    bounded where $\sigma_q$ and $\sigma_p$ are small and far apart. With `weight=0` the value is
    an unbiased estimate of $\mathrm{KL}(q \,\|\, p)$.

    Ping et al. 2018, arXiv:1807.07281.

    Args:
        flow: the student $q$: inverse autoregressive layers in one order with the univariate
            `Affine`, over a `Normal` base.
        log_density: the teacher $p$ as a `ModelDensity`: an `AutoregressiveModel` with the
            conditional `MixtureOf(1)`, or a `Flow` of affine autoregressive layers in one order.
        key: a PRNG key.
        num_samples: the number of samples $x$ for each context.
        context: `(B, *context_shape)`.
        weight: the weight $\lambda$ of the second term.

    Raises:
        ValueError: for conditionals that are not normal, or need more than one pass.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> teacher = afflow.made(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> student = afflow.iaf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(1))
        >>> density = afflow.inference.ModelDensity(teacher)
        >>> afflow.inference.gaussian_kl(student, density, jax.random.key(0), 10).item()
        0.0
    """
    check_number("weight", weight, lambda weight: weight >= 0, "at least 0")
    check_affine(flow)
    teacher = get_teacher(log_density)

    def find_divergence(key, context):
        x, to_data = _sample(flow, key, context)
        mu_q, log_s_q = to_data(jnp.zeros_like(x))
        mu_p, log_s_p = read_gaussians(teacher, x, context)
        difference = log_s_q - log_s_p
        shift = (mu_q - mu_p) * jnp.exp(-log_s_p)
        kl = 0.5 * (jnp.exp(2 * difference) + shift**2 - 1) - difference
        return jnp.sum(kl + weight * difference**2)

    return _average(find_divergence, flow, key, num_samples, context)


def _sample(flow: Flow, key: jax.Array, context: jax.Array | None):
    """Return a sample of the student, and the maps of its tokens from noise to data."""
    return run_and_record(flow.bijector, flow.base.sample(key, context), context, forward=True)


def _average(f: Callable, flow: Flow, key: jax.Array, num_samples: int, context) -> jax.Array:
    """Return the mean of `f(key, context)` over `num_samples` keys for each context."""
    context = check_context(flow, context)
    if context is None or context.shape == flow.context_shape:
        return jax.vmap(lambda key: f(key, context))(jax.random.split(key, num_samples)).mean()
    keys = jax.random.split(key, (num_samples, len(context)))
    return jax.vmap(jax.vmap(f), (0, None))(keys, context).mean()
