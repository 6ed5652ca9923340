"""Fitting a model to data, in compiled loops over minibatches."""

from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from afflow._tools.arguments import check_callable, check_instance
from afflow._tools.arrays import to_double
from afflow._tools.calls import make_typed
from afflow._tools.shapes import check_size
from afflow.core.table import Table, get_table
from afflow.training.callbacks import Callback
from afflow.training.carried import Carrying
from afflow.training.checkpoint import Checkpoint
from afflow.training.history import History, NonFiniteLossError
from afflow.training.loop import train
from afflow.training.objectives import Objective, maximum_likelihood, observed_likelihood
from afflow.training.optimizer import Optimizer, choose_learning_rate, choose_weight_decay
from afflow.training.placement import make_placement, on_mesh
from afflow.training.rows import Rows, cut, make_rows
from afflow.training.scale import check_discrete, warn_of_scale
from afflow.training.sources import make_source
from afflow.training.stream import Stream
from afflow.training.trainable import Trainable, restrict

_PART, _SEARCHED = 2**12, 2**15  # rows that are scored at a time, and in all
NO_EPOCH = 2**32 - 1  # a child of the key that orders no epoch, for the steps


class Density(Protocol):
    """A module that can be fitted: `log_prob` is its log-density over leading batch axes."""

    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array: ...


Model = TypeVar("Model", bound=Density)


@on_mesh
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
    accumulate: int = 1,
    trainable: Trainable | None = None,
    ema: float | None = 0.999,
    checkpoint: Checkpoint | None = None,
    callbacks: Iterable[Callback] = (),
    mesh: Mesh | None = None,
    progress: bool = True,
    label: str = "",
) -> tuple[Model, History]:
    r"""Fit a model to data; return the best model and the history of its losses.

    The loss is the weighted mean of an objective over the rows, by default the negative
    log-likelihood,

    $$\sum_i w_i\,\ell_\theta(x_i, h_i) \Big/ \sum_i w_i, \qquad
    \ell_\theta(x, h) = -\log q_\theta(x \mid h).$$

    Any module with `log_prob(x, context)` over batches can be fitted. Its `nnx.Param` leaves are
    trained. A model that trains on random orders or noise also has a method
    `training_log_prob(key, x, context)`, which `fit` maximises instead. Validation uses the same
    key in every epoch. Each epoch visits the training rows in a new order, in whole minibatches,
    and leaves a remainder out. The steps run in compiled loops. The same arguments give the same
    result bit for bit on the same machine.

    Args:
        flow: the model to start from; it is not changed.
        x: data `(N, *event_shape)`, or a table for a flow with columns. A `numpy.memmap` stays in
            its file; its minibatches, with their contexts, are read while the device trains. The
            minibatches of a `Stream` are read in the same way. With consecutive windows
            (`cut_windows`) the network carries its state from window to window.
        key: a PRNG key for the order of the minibatches and for random objectives.
        context: `(N, *context_shape)` for a conditional model.
        weights: `(N,)`, the weight of each row; equal by default.
        signed_weights: allow negative weights, as some generators of simulated events give. Rows
            with negative weights then cancel others. A warning says if few effective rows are left.
        missing: allow NaN in `x` for values that are missing at random, and fit by
            `observed_likelihood`. An `AutoregressiveModel` and a lower triangular `Flow`, such as
            `made`, take missing values at the end of their order only. `deep_nade` and `eonade`
            take them anywhere. `made_ensemble` takes none.
        objective: `objective(model, key, x, context)`, the losses `(B,)` of a minibatch.
        validation: a fraction of the rows to hold out, or held-out data: `x`, `(x, context)` or
            `(x, context, weights)`. For consecutive windows its rows may be longer than a window;
            the loss is then in nats per window. The choice of held-out rows depends on the number
            of rows only; a second call of `fit` on the same data holds out the same rows. With 0
            no rows are held out and training does not stop early.
        batch_size: the number of rows in a minibatch, at most the number of training rows. The
            default is the power of two nearest to the square root of the number of training rows,
            from 16 to 1024.
        max_epochs: the number of epochs, unless training stops early.
        patience: the number of epochs without a better validation loss before training stops.
        learning_rate: the initial rate of the default optimizer: AdamW on gradients clipped to norm
            5, with a cosine decay to zero over `max_epochs`. The default for a flow and `N` rows is
            $0.001\,(N / 1000)^{1/4}$, at most 0.002. It is 0.001 for a `Stream` and for other
            models, unless they have a `learning_rate`, as `fvsbn`, `nade` and `rnade` do.
        weight_decay: the decoupled weight decay of the default optimizer. A step subtracts
            `learning_rate * weight_decay` times each kernel of a network. The default is $60\,D/N$
            for a flow and `N` rows in `D` coordinates, at most 3; it is zero for other models, and
            for a `Stream`.
        optimizer: an optax optimizer instead of the default, or a function that makes one from the
            total number of its steps, for a schedule.
        accumulate: the number of minibatches whose mean gradient makes one step of the optimizer.
            The steps are those of minibatches `accumulate` times as large, in the memory of one.
        trainable: the parameters to train: patterns of paths such as `"bijector.bijectors.0.*"`, or
            a function that maps a path to whether it is trained. `paths_of(flow)` lists the paths.
            Each copy in a `Repeat` has a separate path.
        ema: the decay of an exponential moving average of the parameters. The average is validated
            and returned. Step `t` uses the decay `t / (t + 9)` if it is smaller, so that short runs
            forget their start. With `None` the parameters themselves are validated and returned.
        checkpoint: where to write checkpoints. A run that was killed resumes from its latest
            checkpoint if `fit` is called again with the same arguments, with the same result bit
            for bit.
        callbacks: functions of an `Epoch`, such as loggers, called after each epoch. Training stops
            if one returns true.
        mesh: train on all devices of the mesh. Rows of each minibatch are split over the mesh axis
            `data`, matrices over the mesh axis `model` if there is one. The default is the mesh of
            `jax.set_mesh`, if its axes are `data` and perhaps `model`.
        progress: show a progress bar, if `tqdm` is installed.
        label: text in front of the bar.

    Returns:
        The model with the best validation loss, or the last model without validation; and the
        `History` of losses in nats. Ctrl-C ends training with the best model so far.

    Raises:
        ValueError: for rows that are not finite, shapes that do not match, or a checkpoint that is
            damaged or belongs to another run.
        NonFiniteLossError: if the loss or a parameter becomes infinite or NaN.

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
    placement = make_placement(mesh)
    keys = jax.random.split(make_typed(key))
    table = get_table(flow)
    if table is not None:
        x, validation = _encode(table, x, validation)
    frame, outer = Carrying(x) if isinstance(x, Stream) and x.consecutive else table, flow
    if frame is not None:
        callbacks = [_wrap(frame, callback) for callback in callbacks]
        flow = frame.enter(outer)
        trainable = restrict(trainable, outer, flow)
    if missing:
        objective = _choose_objective(flow, x, validation, objective)
        if isinstance(x, Stream):
            x = x.with_check(lambda batch: _check_missing(flow, "x", batch.x))
    rows = x if isinstance(x, Stream) else make_rows(x, context, weights)
    if signed_weights and isinstance(x, Stream):
        raise ValueError(
            "Expected an array for signed_weights=True, got a Stream: each of its minibatches is "
            "scaled by the sum of its weights, which may be near zero or negative. Give the rows "
            "as an array, or as a numpy.memmap."
        )
    given = {"context": context, "weights": weights, "batch_size": batch_size}
    ignored = [name for name, value in given.items() if value is not None]
    if ignored and isinstance(x, Stream):
        raise ValueError(
            f"Expected no {', '.join(ignored)} beside a Stream: its minibatches are x, "
            f"(x, context) or (x, context, weights)."
        )
    options = objective, validation, batch_size, keys, placement
    source = make_source(rows, *options, signed_weights=signed_weights, missing=missing)
    learning_rate = choose_learning_rate(outer, x) if learning_rate is None else learning_rate
    weight_decay = choose_weight_decay(outer, x) if weight_decay is None else weight_decay
    source.check_model(flow)
    _check_networks(flow)
    first = rows if isinstance(rows, Rows) else source.first
    if missing or objective is maximum_likelihood:
        check_discrete(flow, first)
    warn_of_scale(flow, first)
    try:
        trained, history = train(
            flow,
            source.loss,
            key=jax.random.fold_in(keys[1], NO_EPOCH),
            num_steps=source.num_steps,
            max_epochs=max_epochs,
            batches=source.batches,
            validate=source.validate,
            patience=patience,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            optimizer=optimizer,
            accumulate=accumulate,
            trainable=trainable,
            ema=ema,
            chunk=_choose_chunk(source.chunk, checkpoint and checkpoint.steps),
            checkpoint=checkpoint,
            callbacks=callbacks,
            mesh=mesh,
            progress=progress,
            label=label,
        )
    except NonFiniteLossError as error:
        if error.epoch == 0 and isinstance(rows, Rows):
            _note_zero_density(error, flow, rows)
        if frame is not None:
            error.flow = frame.leave(error.flow)
        raise
    return trained if frame is None else frame.leave(trained), history


def _choose_chunk(chunk: int | None, steps: int | None) -> int | None:
    """Return how many minibatches to stack: at most `chunk`, and a divisor of `steps`."""
    if chunk is None or steps is None:
        return chunk or steps
    return next(size for size in range(min(chunk, steps), 0, -1) if steps % size == 0)


def _wrap(frame: Table | Carrying, callback: Callback) -> Callback:
    """Return a callback that receives the user's model instead of the model that `enter` made."""
    return lambda epoch: callback(epoch._replace(model=frame.leave(epoch.model)))


def _check_networks(flow: Any) -> None:
    """Raise `ValueError` for networks that `fit` cannot put into training mode."""
    kinds = nnx.BatchNorm, nnx.Dropout
    some = any(isinstance(part, kinds) for _, part in nnx.iter_graph(flow))
    if some and not getattr(flow, "is_stateful", False):
        raise ValueError(
            "Expected BatchNorm and Dropout in the network of an Embedded that is the outermost "
            "bijector of a Flow: elsewhere they cannot be trained in training mode."
        )


def _choose_objective(flow: Any, x: Any, validation: Any, objective: Objective) -> Objective:
    """Return the objective for rows with missing values.

    Raises:
        ValueError: if the model or the data do not allow missing values.
    """
    if not hasattr(flow, "observed_log_prob"):
        raise ValueError(
            f"Expected a Flow, an AutoregressiveModel or an OrderAgnosticModel for rows with "
            f"missing values, got {type(flow).__name__}: impute them, or drop the rows."
        )
    held_out = validation[0] if isinstance(validation, tuple) else validation
    for name, rows in (("x", x), ("validation", held_out)):
        if np.ndim(rows):  # not a Stream, whose minibatches are checked when they are read
            _check_missing(flow, name, rows)
    return observed_likelihood if objective is maximum_likelihood else objective


def _check_missing(flow: Any, name: str, rows: Any) -> None:
    """Raise `ValueError` if the model does not allow the pattern of missing values."""
    parts = cut(len(rows), rows) if isinstance(rows, np.memmap) else [slice(None)]
    for part in parts:
        flow.check_missing(to_double(name, rows[part] if len(parts) > 1 else rows))


def _encode(table: Table, x: Any, validation: Any) -> tuple[Any, Any]:
    """Return data and held-out data as the arrays that the device trains on."""
    if isinstance(x, Stream):
        raise ValueError("Expected an array or a table for a flow with columns, got a Stream.")
    if isinstance(validation, tuple):
        return table.encode(x), (table.encode(validation[0]), *validation[1:])
    is_share = np.ndim(validation) == 0 and not hasattr(validation, "keys")
    return table.encode(x), validation if is_share else table.encode(validation)


def _note_zero_density(error, flow, rows):
    """Add a note to `error` with the first row that has density zero before training."""
    for start in range(0, min(rows.size, _SEARCHED), _PART):
        x, context, _ = rows.at(slice(start, start + _PART))
        nowhere = np.flatnonzero(np.isneginf(flow.log_prob(x, context)))
        if len(nowhere):
            error.add_note(
                f"Row {start + nowhere[0]} had density 0 before training: it lies outside the "
                f"domain of the model, or too far out."
            )
            return
