"""Fitting a model to data, an epoch at a time on the device."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from afflow._tools.arguments import check_callable, check_instance
from afflow._tools.arrays import double
from afflow._tools.calls import typed
from afflow._tools.shapes import check_size
from afflow.core.table import Table, table_of
from afflow.training.callbacks import Callback
from afflow.training.checkpoint import Checkpoint
from afflow.training.history import History, NonFiniteLossError
from afflow.training.loop import train
from afflow.training.objectives import Objective, maximum_likelihood, observed_likelihood
from afflow.training.optimizer import Optimizer, usual_learning_rate, usual_weight_decay
from afflow.training.placement import placement_on
from afflow.training.rows import Rows, rows_of
from afflow.training.scale import warn_of_scale
from afflow.training.selection import Trainable, within
from afflow.training.sources import source_of
from afflow.training.stream import Stream

_PART, _SEARCHED = 2**12, 2**15  # rows that are scored at a time, and at most


class Density(Protocol):
    """A module that can be fitted: it has a log-density over leading batch axes."""

    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array: ...


Model = TypeVar("Model", bound=Density)


def fit(
    flow: Model,
    x: jax.Array | np.ndarray | Stream,
    *,
    key: jax.Array,
    context: jax.Array | None = None,
    weights: jax.Array | None = None,
    signed_weights: bool = False,
    missing: bool = False,
    objective: Objective = maximum_likelihood,
    validation: float | jax.Array | tuple[jax.Array, ...] = 0.1,
    batch_size: int | None = None,
    max_epochs: int = 100,
    patience: int = 20,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    optimizer: Optimizer | None = None,
    trainable: Trainable | None = None,
    ema: float | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Iterable[Callback] = (),
    mesh: Mesh | None = None,
    progress: bool = True,
    label: str = "",
) -> tuple[Model, History]:
    r"""Fit a model to data; return the best one and its history.

    Minimises the weighted mean of an objective over the rows, by default the negative
    log-likelihood,

    $$\sum_i w_i\,\ell_\theta(x_i, h_i) \Big/ \sum_i w_i, \qquad
    \ell_\theta(x, h) = -\log q_\theta(x \mid h).$$

    Anything with `log_prob(x, context)` over batches can be fitted; its `nnx.Param`
    leaves are trained. A model that trains on random orders or noise has a method
    `training_log_prob(key, x, context)` besides, which is then maximised instead; validation
    draws from one key in every epoch. Each epoch visits the training rows in a new order, in whole
    minibatches (a remainder waits for another epoch), inside one compiled scan. The
    same arguments give the same result bit for bit on the same machine.

    Args:
        flow: the model to start from; it is not changed.
        x: data `(N, *event_shape)`. A `numpy.memmap` stays in its file, and minibatches of
            it and of the context are read while the device trains; so are those of a `Stream`.
        key: drives the order of the minibatches, and random objectives.
        context: `(N, *context_shape)` for a conditional model.
        weights: `(N,)`, how much each row counts; by default all the same.
        signed_weights: allow negative weights, as some generators of simulated events give. Rows
            in excess are then cancelled by others; a warning says where they cancel so much
            that few effective rows are left.
        missing: allow NaN in `x`, where a value is missing at random, and fit by
            `observed_likelihood`: for `AutoregressiveModel` with missing values at the end
            of its order, for an `OrderAgnosticModel` anywhere.
        objective: `objective(model, key, x, context)`, the losses `(B,)` of a minibatch.
        validation: a fraction of the rows to hold out, or held-out data: `x`,
            `(x, context)` or `(x, context, weights)`. The rows held out depend on nothing but
            the number of rows, so training that is continued holds out the same. With 0
            nothing is held out and training does not stop early.
        batch_size: rows in a minibatch; at most the number of training rows. By default the
            power of two next to the square root of that number, from 16 to 1024.
        max_epochs: epochs to train for if not stopped early.
        patience: epochs without a better validation loss before training stops.
        learning_rate: initial rate of the default optimizer: AdamW on gradients clipped
            to norm 5, with a cosine decay to zero over `max_epochs`. By default that of the
            model (`fvsbn` has one), else 0.001.
        weight_decay: how much of a network's kernels the default optimizer takes away in a step,
            in units of the learning rate. By default $60\,D/N$ for a flow and `N` rows in `D`
            coordinates, at most 3; zero for other models, and for a `Stream`.
        optimizer: any optax optimizer in place of the default, or a function that makes one
            from the number of steps, for a schedule over all of them.
        trainable: train these parameters only: patterns of paths, `"bijector.bijectors.0.*"` say,
            or a function of a path that says whether it is trained. `paths_of(flow)` lists the
            paths; each copy in a `Repeat` has its own.
        ema: validate and return an exponential moving average of the parameters with this
            decay, 0.999 say; it starts with a quicker one.
        checkpoint: where to keep checkpoints. A run that was killed goes on from its latest
            when `fit` is called again with the same arguments, to the same bits.
        callbacks: called with an `Epoch` after each, loggers too; training stops where one
            returns true.
        mesh: train on all its devices: rows of each minibatch split over its axis `data`,
            matrices over an axis `model`, if it has one.
        progress: show a progress bar, if `tqdm` is installed.
        label: stands in front of the bar.

    Returns:
        The model with the best validation loss (without validation: the last), and the
        `History` of losses in nats. Ctrl-C ends training with the best model so far.

    Raises:
        ValueError: for rows that are not finite, shapes that do not match, or a checkpoint
            that is damaged or of another run.
        NonFiniteLossError: if the loss or a parameter turns infinite or NaN.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> x = 3 + jax.random.normal(jax.random.key(0), (512, 2))
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> flow, history = afflow.fit(
        ...     flow, x, key=jax.random.key(1), max_epochs=20, progress=False
        ... )
        >>> history.validation[-1] < history.validation[0]
        True

        A custom optimizer with weight decay, clipping and a schedule, as a function of the steps:

        >>> import optax
        >>> def optimizer(num_steps):
        ...     rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, num_steps // 10, num_steps)
        ...     return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
        >>> flow, history = afflow.fit(
        ...     flow, x, key=jax.random.key(1), optimizer=optimizer, max_epochs=1, progress=False
        ... )
    """
    check_size("max_epochs", max_epochs)
    callbacks = tuple(callbacks) if isinstance(callbacks, Iterable) else callbacks
    if batch_size is not None:
        check_size("batch_size", batch_size)
    check_size("patience", patience, least=0)
    if checkpoint is not None:
        check_instance("checkpoint", checkpoint, Checkpoint)
    check_callable("objective", objective, "afflow.training.maximum_likelihood")
    placement = placement_on(mesh)
    keys = jax.random.split(typed(key))
    table = table_of(flow)
    if table is not None:
        x, validation = _encoded(table, x, validation)
        weight_decay = usual_weight_decay(flow, x) if weight_decay is None else weight_decay
        callbacks = [_around(table, callback) for callback in callbacks]
        outer, flow = flow, table.enter(flow)
        trainable = within(trainable, outer, flow)
    rows = x if isinstance(x, Stream) else rows_of(x, context, weights)
    if missing:
        objective = _for_missing(flow, x, validation, objective)
    if signed_weights and isinstance(x, Stream):
        raise ValueError("Expected an array for signed_weights=True, got a Stream.")
    options = objective, validation, batch_size, keys, placement
    source = source_of(rows, *options, signed_weights=signed_weights, missing=missing)
    jax.eval_shape(flow.log_prob, *source.first[:2])  # the model's own checks
    _check_networks(flow)
    if isinstance(rows, Rows):
        warn_of_scale(flow, rows)
    try:
        trained, history = train(
            flow,
            source.loss,
            key=jax.random.fold_in(keys[1], max_epochs),
            num_steps=source.num_steps,
            max_epochs=max_epochs,
            batches=source.batches,
            validate=source.validate,
            patience=patience,
            learning_rate=usual_learning_rate(flow) if learning_rate is None else learning_rate,
            weight_decay=usual_weight_decay(flow, x) if weight_decay is None else weight_decay,
            optimizer=optimizer,
            trainable=trainable,
            ema=ema,
            chunk=(checkpoint and checkpoint.steps) or source.chunk,
            checkpoint=checkpoint,
            callbacks=callbacks,
            mesh=mesh,
            progress=progress,
            label=label,
        )
    except NonFiniteLossError as error:
        if error.epoch == 0 and isinstance(rows, Rows):
            _note_zero_density(error, flow, rows)
        if table is not None:
            error.flow = table.leave(error.flow)
        raise
    return trained if table is None else table.leave(trained), history


def _around(table: Table, callback: Callback) -> Callback:
    """Return a callback that sees the flow of tables in place of the model inside."""
    return lambda epoch: callback(epoch._replace(model=table.leave(epoch.model)))


def _check_networks(flow: Any) -> None:
    """Raise `ValueError` for networks that `fit` cannot put into training mode."""
    kinds = nnx.BatchNorm, nnx.Dropout
    some = any(isinstance(part, kinds) for _, part in nnx.iter_graph(flow))
    if some and not getattr(flow, "is_stateful", False):
        raise ValueError(
            "Expected BatchNorm and Dropout in the network of an Embedded that is the outermost "
            "bijector of a Flow: elsewhere they cannot be trained in training mode."
        )


def _for_missing(flow: Any, x: Any, validation: Any, objective: Objective) -> Objective:
    """Return the objective for rows with missing values; `ValueError` if there is none."""
    if not hasattr(flow, "observed_log_prob") or isinstance(x, Stream):
        raise ValueError(
            f"Expected an AutoregressiveModel or an OrderAgnosticModel and an array for rows with "
            f"missing values, got {type(flow).__name__}: impute them, or drop the rows."
        )
    held_out = validation[0] if isinstance(validation, tuple) else validation
    for name, rows in (("x", x), ("validation", held_out)):
        if np.ndim(rows):
            flow.check_missing(double(name, rows))
    return observed_likelihood if objective is maximum_likelihood else objective


def _encoded(table: Table, x: Any, validation: Any) -> tuple[Any, Any]:
    """Return data and held-out data in the numbers that the device trains on."""
    if isinstance(x, Stream):
        raise ValueError("Expected an array or a table for a flow with columns, got a Stream.")
    if isinstance(validation, tuple):
        return table.encode(x), (table.encode(validation[0]), *validation[1:])
    is_share = np.ndim(validation) == 0 and not hasattr(validation, "keys")
    return table.encode(x), validation if is_share else table.encode(validation)


def _note_zero_density(error, flow, rows):
    """Note on the error a row to which the model gave no density from the start."""
    for start in range(0, min(rows.size, _SEARCHED), _PART):
        x, context, _ = rows.at(slice(start, start + _PART))
        nowhere = np.flatnonzero(np.isneginf(flow.log_prob(x, context)))
        if len(nowhere):
            error.add_note(
                f"Row {start + nowhere[0]} had density 0 before training: it lies outside the "
                f"domain of the model, or too far out."
            )
            return
