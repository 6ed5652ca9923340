"""Sources of minibatches: arrays on the device, files, or any iterator."""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from afflow._tools.arrays import make_native
from afflow._tools.calls import number_evenly
from afflow.training.loop import Batches
from afflow.training.objectives import Objective
from afflow.training.placement import Placement
from afflow.training.rows import (
    DeviceShuffle,
    Rows,
    check_finite,
    check_some_weight,
    checked,
    count_held_out,
    cut,
    make_rows,
    shuffle,
    split,
)
from afflow.training.stream import HostShuffle, Stream, stack_size

_NUMBERS = 2**16  # numbers in the rows that are validated at a time


class Source(NamedTuple):
    """The arguments of `train` that depend on the data, and the data for checks of the model.

    `first` holds the first rows. `shapes` holds the shapes and types of the data and, if the user
    gave any, of the held-out data.
    """

    loss: Partial
    batches: Batches
    num_steps: int
    chunk: int | None
    validate: Partial | None
    first: Rows
    shapes: tuple[Rows, ...] = ()

    def check_model(self, model: Any) -> None:
        """Raise `ValueError` if the model does not take the data or the held-out data."""
        data, *held_out = self.shapes
        jax.eval_shape(model.log_prob, data.x, data.context)
        for rows in held_out:
            try:
                jax.eval_shape(drop_noise(model).log_prob, rows.x, rows.context)
            except ValueError as error:
                raise ValueError(f"In validation: {error}") from error


def make_source(
    data: Any,
    objective: Objective,
    validation: Any,
    batch_size: int | None,
    keys: jax.Array,
    placement: Placement,
    *,
    signed_weights: bool = False,
    missing: bool = False,
) -> Source:
    """Return the source of minibatches for a `Stream` or for `Rows`.

    Raises:
        ValueError: for unusable rows or held-out data, or minibatches that do not divide over the
            devices.
    """
    losses = Partial(objective)
    rules = {"signed_weights": signed_weights, "missing": missing}
    if isinstance(validation, tuple):
        validation = checked(make_rows(*validation), "validation x", **rules)
    elif np.ndim(validation):
        validation = checked(make_rows(validation), "validation x", missing=missing)
    if isinstance(data, Stream):
        data = data.with_check(partial(check_finite, name="x of a minibatch", missing=missing))
        source = _make_source_of_stream(data, losses, validation, keys, placement)
        return source._replace(shapes=_find_shapes(source.first, validation))
    data = checked(data, "x", **rules)
    num_rows = data.size - count_held_out(data.size, validation)
    batch_size = min(batch_size or choose_batch_size(num_rows), num_rows)
    if batch_size % placement.num_parts:
        raise ValueError(
            f"Expected minibatches that divide over {placement.num_parts} devices, got "
            f"{batch_size} rows: choose another batch_size."
        )
    make = _make_source_on_host if data.is_on_host else _make_source_in_memory
    source = make(data, losses, validation, batch_size, keys, placement)
    return source._replace(shapes=_find_shapes(data, validation))


def _find_shapes(*parts: Any) -> tuple[Rows, ...]:
    """Return the shapes and types of those parts that are rows, with native numbers."""

    def find(a):
        return jax.ShapeDtypeStruct(
            a.shape, jax.dtypes.canonicalize_dtype(make_native(a[:0]).dtype)
        )

    return tuple(jax.tree.map(find, part) for part in parts if isinstance(part, Rows))


def choose_batch_size(num_rows: int) -> int:
    """Return the power of two nearest to the square root of `num_rows`, from 16 to 1024.

    With few rows, small minibatches give enough steps before the model overfits.
    """
    return min(max(2 ** round(math.log2(num_rows) / 2), 16), 1024)


def _make_source_in_memory(rows, losses, validation, batch_size, keys, placement) -> Source:
    """Return a source for rows that are in the memory of the device."""
    train, held_out = split(rows, validation)
    loss = Partial(_train_at, losses, placement.everywhere(_normalize_weights(train)))
    return Source(
        loss,
        DeviceShuffle(train.size, batch_size, keys[1]),
        train.size // batch_size,
        None,
        held_out and _make_validation(losses, held_out, keys[0], placement),
        train.at(slice(0, 1)),
    )


def _make_source_on_host(rows, losses, validation, batch_size, keys, placement) -> Source:
    """Return a source that leaves rows in their file until they are needed."""
    seed = tuple(np.asarray(jax.random.key_data(keys[1])).ravel().tolist())
    order = shuffle(rows.size)
    size = count_held_out(rows.size, validation)
    held_out, index = order[:size], np.sort(order[size:])
    if size:
        validate = Partial(_compute_mean_loss_on_host, losses, rows, np.sort(held_out), keys[0])
    else:
        _, given = split(rows, validation)
        validate = given and _make_validation(losses, given, keys[0], placement)
    if rows.weights is not None:
        check_some_weight(rows.weights[index], rows.weights[held_out] if size else None)
        rows = rows._replace(weights=rows.weights / rows.weights[index].mean())
    batches = HostShuffle(rows, index, batch_size, seed)
    first = rows.at(slice(0, batch_size))
    num_steps = len(index) // batch_size
    return Source(
        Partial(_train_on, losses), batches, num_steps, stack_size(first), validate, first
    )


def _make_source_of_stream(stream, losses, validation, keys, placement) -> Source:
    """Return a source for the minibatches of a `Stream`."""
    first = stream.first()
    if isinstance(validation, float) and validation:
        raise ValueError(
            f"Expected held-out data as validation of a Stream, or 0 for none, got {validation}."
        )
    _, held_out = split(first, validation)
    validate = held_out and _make_validation(losses, held_out, keys[0], placement)
    loss = Partial(_train_on, losses)
    return Source(loss, stream, stream.num_steps, stack_size(first), validate, first)


def _compute_losses(losses: Any, model: Any, key: jax.Array, batch: Rows) -> jax.Array:
    """Return the losses of the rows, times their weights."""
    x, context, weights = batch
    found = losses(model, key, x, context)
    return found if weights is None else found * weights


def _train_at(losses: Any, data: Rows, model: Any, key: jax.Array, index: Any) -> jax.Array:
    return _train_on(losses, model, key, data.at(index))


def _train_on(losses: Any, model: Any, key: jax.Array, batch: Rows) -> jax.Array:
    """Return the mean loss of a minibatch, with an embedding network in training mode."""
    if batch.context is not None and hasattr(model, "embed_to_train"):
        model, context = model.embed_to_train(batch.context)
        batch = batch._replace(context=context)
    return _compute_losses(losses, model, key, batch).mean()


def _normalize_weights(rows: Rows) -> Rows:
    w = rows.weights
    return rows if w is None else rows._replace(weights=w / w.mean())


def _make_validation(losses: Partial, rows: Rows, key: jax.Array, placement: Placement) -> Partial:
    if rows.is_on_host:
        return Partial(_compute_mean_loss_on_host, losses, rows, np.arange(rows.size), key)
    index = placement.stack(_make_batches(rows, placement.num_parts))
    return Partial(_compute_mean_loss, losses, placement.everywhere(rows), key, index)


def _make_batches(rows: Rows, num_parts: int = 1) -> np.ndarray:
    """Return the numbers `(N, B)` of rows that are validated at a time.

    The batches have equal sizes, so that one program validates all rows, and divide over the
    devices. The last row fills what the last batch lacks. There are about 1,024 rows in a batch at
    most, and fewer if they are long sequences, whose networks take memory for every token.
    """
    numbers = math.prod(rows.x.shape[1:])
    at_once = min(max(_NUMBERS // max(numbers, 1), 8), 1024)
    return number_evenly(rows.size, at_once, num_parts)


def drop_noise(model: Any) -> Any:
    """Return the model for validation, without the noise of training, such as dropout."""
    return model.without_noise() if hasattr(model, "without_noise") else model


@jax.jit
def _compute_mean_loss(losses: Any, data: Rows, key: jax.Array, index: jax.Array, model: Any):
    """Return the mean loss over `data`.

    The rows come first in `index`. What follows only fills the last batch, and does not count.
    """
    data, model = _normalize_weights(data), drop_noise(model)
    counts = jnp.arange(index.size).reshape(index.shape) < data.size

    def add_up(batch):
        key, index, counts = batch
        return jnp.where(counts, _compute_losses(losses, model, key, data.at(index)), 0).sum()

    keys = jax.random.split(key, len(index))
    return jax.lax.map(add_up, (keys, index, counts)).sum() / data.size


def _compute_mean_loss_on_host(
    losses: Any, rows: Rows, index: np.ndarray, key: jax.Array, model: Any
):
    """Return the mean loss over the rows of `index`, which are read in parts."""
    means, sizes = [], []
    for number, chosen in enumerate(cut(len(index), rows.x)):
        part = rows.at(index[chosen])
        part_key = jax.random.fold_in(key, number)
        sizes.append(part.size if part.weights is None else part.weights.sum())
        mean = _compute_mean_loss(losses, part, part_key, _make_batches(part), model)
        means.append(mean if sizes[-1] else 0.0)  # the mean of a part without weight is NaN
    return np.average([float(mean) for mean in means], weights=sizes)
