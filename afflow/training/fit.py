"""Maximum likelihood by minibatches, an epoch at a time on the device."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

Model = TypeVar("Model", bound="Density")
Data = tuple[jax.Array, jax.Array | None]
MakeOptimizer = Callable[[int], optax.GradientTransformation]


class Density(Protocol):
    """What can be fitted: a module with a log-density over leading batch axes."""

    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array: ...


class History(NamedTuple):
    """Mean negative log-likelihood, in nats, after each epoch.

    `train[i]` is the mean over the minibatches of epoch `i` as they were trained on,
    `validation[i]` that of the held-out data after the epoch (empty without any), and
    `best_epoch` the epoch of the returned parameters.
    """

    train: list[float]
    validation: list[float]
    best_epoch: int


class NonFiniteLossError(FloatingPointError):
    """The loss turned infinite or NaN; nothing trained before is lost.

    Attributes:
        epoch: the epoch, from 0, in which it happened.
        flow: the best model before it.
        history: the losses up to and including that epoch.
    """

    def __init__(self, epoch: int, flow: Density, history: History):
        super().__init__(
            f"Expected a finite loss, got train {history.train[-1]} and validation "
            f"{history.validation[-1:] or None} in epoch {epoch}: try a smaller learning "
            f"rate, or standardised data. The best model so far is in this error's `.flow`."
        )
        self.epoch, self.flow, self.history = epoch, flow, history


def fit(
    flow: Model,
    x: jax.Array,
    *,
    key: jax.Array,
    context: jax.Array | None = None,
    validation: float | jax.Array | tuple[jax.Array, jax.Array] = 0.1,
    batch_size: int = 256,
    max_epochs: int = 100,
    patience: int = 20,
    learning_rate: float = 1e-3,
    optimizer: optax.GradientTransformation | MakeOptimizer | None = None,
    progress: bool = True,
) -> tuple[Model, History]:
    """Fit a model by maximum likelihood; return the best one and its history.

    Anything with `log_prob(x, context)` over batches can be fitted; its `nnx.Param`
    leaves are trained. A model that trains on random orders or noise has a method
    `training_log_prob(key, x, context)` besides, which is then maximised instead; validation
    draws from one key in every epoch. Each epoch visits the training rows in a new order, in whole
    minibatches (a remainder waits for another epoch), inside one compiled scan. The
    same arguments give the same result bit for bit on the same machine.

    Args:
        flow: the model to start from; it is not changed.
        x: data `(N, *event_shape)`.
        key: drives the validation split and the order of the minibatches.
        context: `(N, *context_shape)` for a conditional model.
        validation: a fraction of the rows to hold out, or held-out data: `x`, or
            `(x, context)`. With 0 nothing is held out and training does not stop early.
        batch_size: rows in a minibatch; at most the number of training rows.
        max_epochs: epochs to train for if not stopped early.
        patience: epochs without a better validation loss before training stops.
        learning_rate: initial rate of the default optimizer: Adam on gradients clipped
            to norm 5, with a cosine decay to zero over `max_epochs`.
        optimizer: any optax optimizer in place of the default, or a function that makes one
            from the number of steps, for a schedule over all of them.
        progress: show a progress bar, if `tqdm` is installed.

    Returns:
        The model with the best validation loss (without validation: the last), and the
        `History` of losses in nats.

    Raises:
        ValueError: for rows that are not finite, or shapes that do not match.
        NonFiniteLossError: if the loss turns infinite or NaN.

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
    """
    if max_epochs < 1 or batch_size < 1:
        raise ValueError(
            f"Expected max_epochs and batch_size >= 1, got {max_epochs} and {batch_size}."
        )
    split_key, epochs_key = jax.random.split(_typed(key))
    train, held_out = _split(_checked(x, context, "x"), validation, split_key)
    jax.eval_shape(flow.log_prob, *_rows(train, slice(0, 1)))  # the model's own checks
    batch_size = min(batch_size, len(train[0]))
    num_steps = len(train[0]) // batch_size
    if optimizer is None:
        optimizer = default_optimizer(learning_rate, max_epochs * num_steps)
    elif callable(optimizer):
        optimizer = optimizer(max_epochs * num_steps)
    graph, params, rest = nnx.split(cast(Any, flow), nnx.Param, ...)
    state, best, best_loss = optimizer.init(params), params, np.inf
    history = History([], [], 0)
    for epoch in (bar := _progress(max_epochs, progress)):
        epoch_key = jax.random.fold_in(epochs_key, epoch)
        params, state, loss = _epoch(
            optimizer, batch_size, graph, rest, params, state, train, epoch_key
        )
        history.train.append(float(loss))
        if held_out is not None:
            loss = _mean_loss(graph, params, rest, held_out, split_key)
            history.validation.append(float(loss))
        if not np.isfinite([history.train[-1], float(loss)]).all():
            raise NonFiniteLossError(epoch, nnx.merge(graph, best, rest), history)
        if held_out is None or loss < best_loss:
            best, best_loss, history = params, float(loss), history._replace(best_epoch=epoch)
        bar.set_postfix(train=f"{history.train[-1]:.4f}", validation=f"{float(loss):.4f}")
        if epoch - history.best_epoch >= patience:
            break
    bar.close()
    return nnx.merge(graph, best, rest), history


@lru_cache
def default_optimizer(learning_rate: float, num_steps: int) -> optax.GradientTransformation:
    """Return Adam on clipped gradients with a cosine decay to zero over `num_steps`."""
    schedule = optax.cosine_decay_schedule(learning_rate, num_steps)
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))


@partial(jax.jit, static_argnames=("optimizer", "batch_size", "graph"))
def _epoch(optimizer, batch_size, graph, rest, params, state, data, key):
    """Train on every whole minibatch of a new shuffle of `data`."""
    num_steps = len(data[0]) // batch_size
    order = jax.random.permutation(key, len(data[0]))[: num_steps * batch_size]
    keys = jax.random.split(jax.random.fold_in(key, 0), num_steps)

    def step(carry, rows):
        params, state = carry
        rows, key = rows
        loss, grads = jax.value_and_grad(_loss)(params, graph, rest, key, _rows(data, rows))
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), loss

    batches = order.reshape(num_steps, batch_size), keys
    (params, state), losses = jax.lax.scan(step, (params, state), batches)
    return params, state, losses.mean()


def _loss(params, graph, rest, key, batch):
    model = nnx.merge(graph, params, rest)
    if hasattr(model, "training_log_prob"):
        return -model.training_log_prob(key, *batch).mean()
    return -model.log_prob(*batch).mean()


@partial(jax.jit, static_argnames="graph")
def _mean_loss(graph, params, rest, data, key):
    """Return the mean loss over all of `data`, a batch at a time."""
    size, batch_size = len(data[0]), 1024
    cut = size - size % batch_size
    whole = _rows(data, np.arange(cut).reshape(-1, batch_size))
    keys = jax.random.split(key, cut // batch_size)
    losses = jax.lax.map(lambda batch: _loss(params, graph, rest, *batch), (keys, whole))
    tail = _rows(data, slice(cut, None))
    last = _loss(params, graph, rest, key, tail) if cut < size else 0.0
    return (losses.sum() * batch_size + last * (size - cut)) / size


def _rows(data: Data, rows: Any) -> Data:
    return jax.tree.map(lambda a: a[rows], data)


def _split(data: Data, validation, key) -> tuple[Data, Data | None]:
    """Return training and validation data."""
    if isinstance(validation, tuple):
        x, context = validation
        return data, _checked(x, context, "validation x")
    if jnp.ndim(validation):
        return data, _checked(validation, None, "validation x")
    if not 0 <= validation < 1:
        raise ValueError(f"Expected validation in [0, 1) or an array, got {validation}.")
    size = len(data[0])
    held_out = max(1, round(validation * size)) if validation else 0
    if held_out >= size:
        raise ValueError(
            f"Expected more rows to train on than validation={validation} leaves of {size}: "
            f"give more data, or validation=0."
        )
    order = jax.random.permutation(key, size)
    train = _rows(data, order[held_out:])
    return train, _rows(data, order[:held_out]) if held_out else None


def _checked(x, context, name) -> Data:
    """Return the data as arrays on the device; `ValueError` for unusable rows."""
    if len(x) == 0:
        raise ValueError(f"Expected at least one row in {name}, got none.")
    if context is not None and len(context) != len(x):
        raise ValueError(
            f"Expected one row of context for each of {name}: {len(x)}, got {len(context)}."
        )
    _check_finite(name, x)
    if context is not None:
        _check_finite("context", context)
    return jnp.asarray(x), None if context is None else jnp.asarray(context)


def _check_finite(name, value):
    value = np.asarray(value)
    bad = np.flatnonzero(~np.isfinite(value.reshape(len(value), -1)).all(1))
    if len(bad):
        raise ValueError(
            f"Expected finite {name}, got {len(bad)} of {len(value)} rows with NaN or "
            f"infinity, the first at index {bad[0]}: drop or impute them."
        )


def _typed(key: jax.Array) -> jax.Array:
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if is_typed else jax.random.wrap_key_data(key)


class _NoBar:
    """Stands in for a progress bar."""

    def __init__(self, epochs: range):
        self.epochs = epochs

    def __iter__(self) -> Iterator[int]:
        return iter(self.epochs)

    def set_postfix(self, **values):
        pass

    def close(self):
        pass


def _progress(max_epochs: int, progress: bool):  # noqa: FBT001
    if progress:
        try:
            from tqdm.auto import tqdm

            return tqdm(range(max_epochs), unit="epoch", dynamic_ncols=True)
        except ImportError:
            pass
    return _NoBar(range(max_epochs))
