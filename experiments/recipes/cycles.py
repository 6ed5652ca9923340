"""Training in cycles, each with a cosine decay, and the checkpoints of a training."""

import os
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from datasets import Split
from measuring.stopwatch import Stopwatch, make_checkpoint

import afflow
from recipes.benchmarks import Settings


class Fitted(NamedTuple):
    """A trained flow, the losses after each epoch, and the cost and cycles of training."""

    flow: afflow.Flow
    train: list[float]
    validation: list[float]
    core_seconds: float = 0.0
    cycles: int = 0


def optimizer(settings: Settings):
    """Return a function from the number of steps to AdamW, clipped and with a cosine decay."""

    def make(num_steps: int) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(settings.learning_rate, num_steps)
        adam = optax.adamw(schedule, weight_decay=settings.weight_decay)
        return optax.chain(optax.clip_by_global_norm(5.0), adam)

    return make


def train_cycle(
    fitted: Fitted, epochs: int, seed: int, settings: Settings, data: Split, folder: Path
) -> Fitted:
    """Fit for one cosine cycle; return the flow with the best validation loss of all cycles.

    A cycle that was killed resumes from checkpoints in `folder`.
    """
    place = folder / str(fitted.cycles)
    watch = Stopwatch(place)
    flow, history = afflow.fit(
        fitted.flow,
        data.train,
        key=jax.random.fold_in(jax.random.key(seed), fitted.cycles),
        validation=data.validation,
        batch_size=settings.batch_size,
        ema=settings.ema,
        max_epochs=epochs,
        patience=settings.patience,
        optimizer=optimizer(settings),
        checkpoint=make_checkpoint(place, epochs),
        callbacks=[watch.keep],
    )
    if fitted.validation and min(fitted.validation) <= min(history.validation):
        flow = fitted.flow
    losses = fitted.train + history.train, fitted.validation + history.validation
    return Fitted(flow, *losses, fitted.core_seconds + watch.read(), fitted.cycles + 1)


def write_checkpoint(fitted: Fitted, path: Path) -> None:
    """Write the arrays, by their paths in the module, with the losses, cost and cycles."""
    path.parent.mkdir(parents=True, exist_ok=True)
    course = fitted._asdict()
    leaves, _ = jax.tree.flatten_with_path(course.pop("flow"))
    arrays = {jax.tree_util.keystr(name): leaf for name, leaf in leaves}
    part = path.with_name(f"{path.stem}.part.npz")
    np.savez(part, **arrays, **course)
    os.replace(part, path)


def read_checkpoint(flow: afflow.Flow, path: Path) -> Fitted:
    """Return the contents of a checkpoint, in a flow of the structure of `flow`."""
    file = np.load(path)
    names, structure = jax.tree.flatten_with_path(flow)
    leaves = [jnp.asarray(file[jax.tree_util.keystr(name)]) for name, _ in names]
    losses = file["train"].tolist(), file["validation"].tolist()
    flow = jax.tree.unflatten(structure, leaves)
    return Fitted(flow, *losses, float(file["core_seconds"]), int(file["cycles"]))
