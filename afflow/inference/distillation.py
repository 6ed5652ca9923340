"""Distillation: a student that samples in one pass, fitted to the density of a teacher."""

from collections.abc import Iterable
from functools import partial
from typing import Any, TypedDict, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from afflow._tools.arguments import check_callable
from afflow._tools.calls import check_context, make_typed, map_over
from afflow._tools.shapes import check_size
from afflow.inference.divergences import Divergence, reverse_kl
from afflow.inference.importance import Estimate
from afflow.inference.teachers import make_density
from afflow.inference.variational import as_pytree, fit_to_density
from afflow.models.flow import Flow
from afflow.training.callbacks import Callback
from afflow.training.checkpoint import Checkpoint
from afflow.training.history import History
from afflow.training.optimizer import Optimizer


class Steps(TypedDict, total=False):
    """The options of `distill` that are the options of `fit_to_density`."""

    num_samples: int
    batch_size: int
    num_steps: int
    max_epochs: int
    learning_rate: float
    optimizer: Optimizer | None
    ema: float | None
    checkpoint: Checkpoint | None
    callbacks: Iterable[Callback]
    progress: bool
    label: str


def distill(
    teacher: Any,
    student: Flow,
    *,
    key: jax.Array,
    contexts: jax.Array | None = None,
    objective: Divergence = reverse_kl,
    held_out: int = 256,
    chunk: int = 64,
    **options: Unpack[Steps],
) -> tuple[Flow, History]:
    r"""Fit a flow that samples in one pass to an autoregressive teacher; return flow and history.

    $$\min_\theta \frac1T\, \mathrm{KL}(q_\theta \,\|\, p) =
    \min_\theta \frac1T\, \mathbb{E}_{x \sim q_\theta}[\log q_\theta(x) - \log p(x)].$$

    A step draws samples of the student and takes the teacher's density at the samples, each in
    parallel passes. The teacher's sampler, which is serial, never runs. The gradient passes through
    the density with respect to $x$; the teacher is not changed. Training needs no data.

    After every epoch `kl_per_token` measures the student on held-out noise. The best student by
    this measure is returned. A small divergence does not show that the student has all modes of
    the teacher: a student that covers half of the mass exactly has a divergence of $\log 2$. For
    teachers with several modes, start from a student that was fitted to data by `fit`.

    van den Oord et al. 2017 (Parallel WaveNet), arXiv:1711.10433; Ping et al. 2018 (ClariNet),
    arXiv:1807.07281.

    Args:
        teacher: the model $p$: a `Flow`, an `AutoregressiveModel` with a continuous conditional, or
            another pytree with a method `log_prob`.
        student: the flow $q_\theta$ to start from, such as `iaf`; it is not changed.
        key: a PRNG key for the noise of training and the held-out noise.
        contexts: contexts `(N, *context_shape)` for a conditional teacher and student.
        objective: the loss. `reverse_kl` needs the parallel directions only.
            `sticking_the_landing` has a gradient without noise at the optimum and needs the
            student's serial direction. `conditional_kl` and `gaussian_kl` compare the conditionals
            of a student and a teacher of one order.
        held_out: the number of samples that choose the best student. With contexts, the samples
            are for contexts that are evenly spaced in `contexts`.
        chunk: the number of held-out samples at a time.
        **options: `num_samples`, `batch_size`, `num_steps`, `max_epochs`, `learning_rate`,
            `optimizer`, `ema`, `checkpoint`, `callbacks`, `progress` and `label`, as in
            `fit_to_density`.

    Returns:
        The best student, and the `History`. Its validation losses are divergences in nats per
        token. Its training losses are means of the objective divided by the number of tokens.

    Raises:
        ValueError: for a teacher without a density, shapes that do not match, numbers out of range,
            or an objective that does not fit the teacher or the student.
        NonFiniteLossError: if the loss or a parameter becomes infinite or NaN.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> teacher = afflow.made(2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> shift = afflow.Standardize(jax.numpy.array([3.0, -3.0]), jax.numpy.ones(2))
        >>> teacher = afflow.Flow(teacher.base, afflow.Chain([teacher.bijector, shift]))
        >>> student = afflow.iaf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(1))
        >>> student, history = afflow.inference.distill(
        ...     teacher, student, key=jax.random.key(0), num_samples=32, max_epochs=3,
        ...     learning_rate=0.1, objective=afflow.inference.gaussian_kl, progress=False,
        ... )
        >>> history.validation[-1] < 0.01
        True
    """
    check_callable("objective", objective, "afflow.inference.reverse_kl")
    check_size("held_out", held_out)
    key, held_out_key = jax.random.split(make_typed(key))
    contexts = check_context(student, contexts)
    size, rows = held_out, contexts
    if contexts is not None:
        size, rows = 1, contexts[np.arange(held_out) * len(contexts) // held_out]

    return fit_to_density(
        student,
        make_density(teacher),
        key=key,
        context=contexts,
        objective=Partial(_divide_by_tokens, as_pytree(objective)),
        validate=Partial(partial(_measure, size, chunk), teacher, held_out_key, rows),
        **options,
    )


def kl_per_token(
    teacher: Any,
    student: Flow,
    *,
    key: jax.Array,
    num_samples: int,
    context: jax.Array | None = None,
    chunk: int = 64,
) -> Estimate:
    r"""Estimate $\mathrm{KL}(q \,\|\, p) / T$ in nats per token, with its standard error.

    $$\frac1{ST} \sum_{i=1}^S \big(\log q(x_i) - \log p(x_i)\big), \qquad x_i \sim q.$$

    The estimate is unbiased. With contexts it is the mean over the contexts, and the standard error
    includes the spread between contexts. Each sample takes one pass of the student and one pass of
    the teacher's density. A token of a flow of vectors is a coordinate.

    Args:
        teacher: the model $p$, as in `distill`.
        student: the flow $q$.
        key: a PRNG key.
        num_samples: the number of samples for each context.
        context: `(N, *context_shape)`.
        chunk: the number of samples at a time.

    Raises:
        ValueError: for a teacher without a density, or fewer than two samples in all.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
        >>> kl = afflow.inference.kl_per_token(flow, flow, key=jax.random.key(0), num_samples=10)
        >>> kl.value.item(), kl.standard_error.item()
        (0.0, 0.0)
    """
    density = make_density(teacher)
    context = check_context(student, context)
    if context is not None:
        context = context.reshape(-1, *(student.context_shape or ()))  # (N, *context_shape)
    size = num_samples * (1 if context is None else len(context))
    check_size("num_samples * len(context)", size, least=2)
    ratios = _find_ratios(density, student, make_typed(key), context, size, chunk)
    tokens = student.event_shape[0]
    return Estimate(ratios.mean() / tokens, ratios.std(ddof=1) / tokens / size**0.5)


@partial(jax.jit, static_argnames=("size", "chunk"))
def _find_ratios(density, student, key, context, size, chunk):
    """Return log q(x) - log p(x) of `size` samples, with the contexts in turn."""

    def find_ratio(item):
        key, context = item
        x, log_q = student.sample_and_log_prob(key, (), context)
        return log_q - density(x, context)

    if context is not None:
        context = jnp.tile(context, (size // len(context), *(1 for _ in context.shape[1:])))
    return map_over(find_ratio, (jax.random.split(key, size), context), chunk)


def _measure(num_samples, chunk, teacher, key, context, student):
    """Return the divergence of a student on fixed noise."""
    options = {"num_samples": num_samples, "context": context, "chunk": chunk}
    return kl_per_token(teacher, student, key=key, **options).value


def _divide_by_tokens(objective, flow, log_density, key, num_samples, context=None):
    """Return an objective in nats per token."""
    return objective(flow, log_density, key, num_samples, context) / flow.event_shape[0]
