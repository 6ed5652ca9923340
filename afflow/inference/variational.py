"""Fitting a flow to an unnormalised density: variational inference."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
from jax.tree_util import Partial, treedef_is_leaf

from afflow._tools.arguments import check_callable, check_methods
from afflow._tools.calls import check_context, make_typed
from afflow._tools.shapes import check_size
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
    validate: Callable[[Flow], Any] | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool = True,
    label: str = "",
) -> tuple[Flow, History]:
    r"""Fit a flow to a density known up to a constant; return the flow and its history.

    By default the loss is minus the evidence lower bound,
    $\mathrm{KL}(q_\theta \,\|\, p) - \log Z$, with the path gradient. Training needs no data: every
    step draws new samples of the flow. With contexts $h$, one flow $q_\theta(x \mid h)$ is fitted
    to $\tilde p(x \mid h)$ for all $h$ at once (amortised inference).

    Close to the target the default gradient has almost no noise, so the last steps improve the flow
    most reliably. The function therefore returns the last flow, not the flow with the lowest loss,
    unless `validate` is given.
    `importance_weights` and `pareto_k` then measure the fit, but only where the flow has samples.
    The reverse divergence can be small for a flow that covers one of several distant modes, and the
    weights of samples from that mode cannot show the others. If more than one mode is possible,
    start from a wide flow, compare several keys, and check against samples from another method. A
    flow is wide if its base is, for example with `base=DiagonalNormal(loc, scale)`.

    Args:
        flow: the flow to start from; it is not changed. Its base must sample by a differentiable
            map, as all bases but `Mixture` do, unless `objective` is `forward_kl`. `iaf` and
            coupling flows sample in one pass.
        log_density: $\log\tilde p$ of one event, `log_density(x)`, or `log_density(x, context)` for
            a flow with context. It is mapped over samples. A `jax.tree_util.Partial` of a function
            and arrays compiles once for all values of the arrays.
        key: a PRNG key for the samples.
        context: contexts `(N, *context_shape)` for a conditional flow.
        objective: the loss: `sticking_the_landing`, `reverse_kl`, `doubly_reparameterized`,
            `importance_weighted`, `forward_kl`, or another `Divergence`.
        num_samples: the number of samples per step, for each context.
        batch_size: the number of contexts per step, drawn with replacement.
        num_steps: the number of steps in an epoch. The mean loss of an epoch is one entry of the
            history.
        max_epochs: the number of epochs.
        learning_rate: the initial rate of the default optimizer: Adam on gradients clipped to norm
            5, with a cosine decay to zero over all steps.
        optimizer: an optax optimizer instead of the default, or a function that makes one from the
            number of steps.
        ema: the decay of an exponential moving average of the parameters. If given, the averaged
            flow is returned.
        validate: a loss of the flow after each epoch. If given, the flow with the lowest loss is
            returned.
        checkpoint: where to write checkpoints. Training resumes from the latest checkpoint of the
            same run.
        callbacks: functions of an `Epoch`, called after each epoch. Training stops if one returns
            true.
        progress: show a progress bar, if `tqdm` is installed.
        label: text in front of the bar.

    Returns:
        The flow after the last step, or the best flow by `validate`, and the `History` of its
        losses in nats.

    Raises:
        ValueError: for numbers out of range, shapes that do not match, or an objective or
            log-density that is not a scalar.
        NonFiniteLossError: if the loss or a parameter becomes infinite or NaN. The error carries
            the flow of the previous epoch.

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
    check_methods("flow", flow, "log_prob", "sample")
    key = make_typed(key)
    check_callable("log_density", log_density, "lambda x: -(x**2).sum() / 2")
    check_callable("objective", objective, "afflow.inference.forward_kl")
    context = check_context(flow, context)
    loss = Partial(
        _Loss(num_samples, batch_size), as_pytree(objective), as_pytree(log_density), context
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
            validate=validate,
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
    """The objective on new samples, for a random choice of contexts in each step."""

    num_samples: int
    batch_size: int

    def __call__(self, objective, log_density, context, flow, key, batch):
        if context is not None:
            key, rows_key = jax.random.split(key)
            rows = jax.random.randint(rows_key, (self.batch_size,), 0, len(context))
            context = context[rows]
        return objective(flow, log_density, key, self.num_samples, context)


def as_pytree(f: Callable) -> Callable:
    """Return a function as a pytree: itself if it is one already, such as a `Partial`."""
    return Partial(f) if treedef_is_leaf(jax.tree.structure(f)) else f


def _check(flow, loss, context, key, **numbers):
    """Raise `ValueError` for numbers below 1 or wrong shapes, before anything is compiled."""
    for name, number in numbers.items():
        check_size(name, number)
    if context is not None and context.shape[1:] != flow.context_shape:
        inner = ", ".join(map(str, flow.context_shape or ()))
        raise ValueError(f"Expected context.shape (N, {inner}), got {context.shape}.")
    shape = jax.eval_shape(loss, flow, key, None).shape
    if shape != ():
        raise ValueError(f"Expected objective to return a scalar, got shape {shape}.")
