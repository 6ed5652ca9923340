"""Fitting a flow to an unnormalised density: variational inference."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from afflow.inference.divergences import Divergence, sticking_the_landing
from afflow.inference.importance import LogDensity
from afflow.models.flow import Flow
from afflow.training.callbacks import Callback
from afflow.training.checkpoint import Checkpoint
from afflow.training.history import History, NonFiniteLossError
from afflow.training.loop import train
from afflow.training.optimizer import Optimizer


def fit_to_density(
    flow: Flow,
    log_density: LogDensity,
    *,
    key: jax.Array,
    context: jax.Array | None = None,
    objective: Divergence = sticking_the_landing,
    num_samples: int = 128,
    batch_size: int = 64,
    num_steps: int = 100,
    max_epochs: int = 50,
    learning_rate: float = 1e-3,
    optimizer: Optimizer | None = None,
    ema: float | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    label: str = "",
) -> tuple[Flow, History]:
    r"""Fit a flow to a density known up to a constant; return it and its history.

    By default it minimises minus the evidence lower bound,
    $\mathrm{KL}(q_\theta \,\|\, p) - \log Z$, along the path gradient. No data are needed: every
    step draws new samples of the flow. With contexts $h$ the flow $q_\theta(x \mid h)$ is fitted
    to all of $\tilde p(x \mid h)$ at once (amortised inference).

    Close to the target the default gradient has no noise, so the last steps count: the last
    flow is returned, not the one with the luckiest loss. `importance_weights` and `pareto_k`
    then tell how good it is, except where it never goes: the reverse divergence is content
    with one of several modes that lie far apart, and weights of samples from that mode
    cannot show it. Start wide, compare several keys, and check against samples of another
    kind where more than one mode is possible.

    Args:
        flow: the flow to start from; it is not changed. Its base must sample by a
            differentiable map, as all but `Mixture` do, or `objective` be `forward_kl`.
            `iaf` and coupling flows sample in one pass.
        log_density: $\log\tilde p$ of one event, `log_density(x)`, or
            `log_density(x, context)` for a flow with context; it is mapped over samples.
            As a `jax.tree_util.Partial` of a function and arrays of data it compiles once
            for all their values.
        key: drives the samples.
        context: contexts `(N, *context_shape)` for a conditional flow.
        objective: what to minimise: `sticking_the_landing`, `reverse_kl`,
            `doubly_reparameterized`, `importance_weighted`, `forward_kl`, or one's own.
        num_samples: samples in a step, for each context.
        batch_size: contexts in a step, drawn with replacement.
        num_steps: steps in an epoch, whose mean loss is one entry of the history.
        max_epochs: epochs to train for.
        learning_rate: initial rate of the default optimizer: Adam on gradients clipped
            to norm 5, with a cosine decay to zero over all steps.
        optimizer: any optax optimizer in place of the default, or a function that makes one
            from the number of steps.
        ema: return an exponential moving average of the parameters with this decay.
        checkpoint: go on from the latest checkpoint of this run, and write them.
        callbacks: called with an `Epoch` after each; training stops where one returns true.
        progress: show a progress bar, if `tqdm` is installed.
        label: stands in front of the bar.

    Returns:
        The flow after the last step, and the `History` of its losses in nats.

    Raises:
        ValueError: for numbers out of range, shapes that do not match, or an objective or
            log-density that is not a scalar.
        NonFiniteLossError: if the loss or a parameter turns infinite or NaN; it carries the
            flow of the epoch before.

    Example:
        >>> import afflow, jax
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.Affine(), 2))
        >>> flow, history = afflow.fit_to_density(
        ...     flow, lambda x: -0.5 * ((x - 3) ** 2).sum(), key=jax.random.key(0),
        ...     max_epochs=5, learning_rate=0.1, progress=False,
        ... )
        >>> round(history.train[-1], 2)  # -log(2 pi)
        -1.84
    """
    loss = Partial(
        _Loss(num_samples, batch_size), Partial(objective), _partial(log_density), context
    )
    _check(flow, loss, context, key, num_samples=num_samples, batch_size=batch_size)
    try:
        return train(
            flow,
            loss,
            key=key,
            num_steps=num_steps,
            max_epochs=max_epochs,
            learning_rate=learning_rate,
            optimizer=optimizer,
            ema=ema,
            checkpoint=checkpoint,
            callbacks=callbacks,
            progress=progress,
            label=label,
        )
    except NonFiniteLossError as error:
        error.add_note(
            "Is log_density finite, with finite gradients, wherever the flow samples? For a "
            "density on a box let the flow end in Interval, for positive variables in Positive."
        )
        raise


@dataclass(frozen=True)
class _Loss:
    """The objective on fresh samples, for a fresh choice of contexts."""

    num_samples: int
    batch_size: int

    def __call__(self, objective, log_density, context, flow, key, batch):
        if context is not None:
            key, rows_key = jax.random.split(key)
            rows = jax.random.randint(rows_key, (self.batch_size,), 0, len(context))
            context = context[rows]
        return objective(flow, log_density, key, self.num_samples, context)


def _partial(f: Callable) -> Partial:
    return f if isinstance(f, Partial) else Partial(f)


def _check(flow, loss, context, key, **numbers):
    """Raise `ValueError` for what cannot run, before anything is compiled."""
    wrong = {name: n for name, n in numbers.items() if n < 1}
    if wrong:
        raise ValueError(f"Expected whole numbers of at least 1, got {wrong}.")
    if context is not None and jnp.shape(context)[1:] != flow.context_shape:
        inner = ", ".join(map(str, flow.context_shape or ()))
        raise ValueError(f"Expected context.shape (N, {inner}), got {jnp.shape(context)}.")
    shape = jax.eval_shape(loss, flow, key, None).shape
    if shape != ():
        raise ValueError(f"Expected objective to return a scalar, got shape {shape}.")
