"""Checkpoints of a training run: written atomically, rotated, and bound to one run."""

import hashlib
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from afflow._tools.arrays import is_key
from afflow._tools.shapes import check_size
from afflow.training.optimizer import take_schedule
from afflow.training.run import Run

_EXTENDABLE = {"number of epochs", "patience"}


@dataclass(frozen=True)
class Checkpoint:
    """The folder and the schedule of a training run's checkpoints.

    A run that was killed, at any moment, resumes from its last checkpoint if it is started again
    with the same arguments. Its result equals, bit for bit, the result of an uninterrupted run. A
    checkpoint of a run with other arguments is an error. An `optimizer` of your own is compared by
    its state only: two learning rates within functions, for example, are not told apart. A
    checkpoint on disk is complete or absent; orbax stores it. If a checkpoint cannot be written,
    for example because the disk is full, the run warns and continues.

    Args:
        folder: a folder for the checkpoints of one run and nothing else; created if missing.
        every: the number of epochs between checkpoints.
        keep: the number of checkpoints to keep, the latest ones.
        steps: if given, also save within an epoch, after every `steps` steps.
        extend: also go on from a checkpoint of a run with another `max_epochs` or `patience`, on
            the same split of the rows, even if that run has stopped. A schedule of the learning
            rate is then the schedule of the new number of steps. By default such a checkpoint is
            refused.

    Raises:
        ValueError: for numbers below one.

    Example:
        >>> import afflow, jax, tempfile
        >>> flow = afflow.Flow(afflow.Normal(1), afflow.Elementwise(afflow.Affine(), 1))
        >>> folder = tempfile.TemporaryDirectory()
        >>> options = {"key": jax.random.key(1), "max_epochs": 2, "progress": False}
        >>> options |= {"checkpoint": afflow.Checkpoint(folder.name)}
        >>> _, first = afflow.fit(flow, jax.numpy.ones((9, 1)), **options)
        >>> _, again = afflow.fit(flow, jax.numpy.ones((9, 1)), **options)  # finished: at once
        >>> first == again
        True
    """

    folder: str | Path
    every: int = 1
    keep: int = 2
    steps: int | None = None
    extend: bool = False

    def __post_init__(self):
        check_size("every", self.every)
        check_size("keep", self.keep)
        check_size("steps", 1 if self.steps is None else self.steps)


class NoStore:
    """The store of a run without checkpoints."""

    def keep(self, run: Run, *, is_last: bool) -> None:
        """Save the run if a checkpoint is due."""

    def latest(self, start: Run) -> Run:
        """Return the run of the latest checkpoint, or `start` if there is none."""
        return start


class Store(NoStore):
    """The checkpoints of one run on disk.

    Args:
        checkpoint: the folder and the schedule.
        identity: digests, by name, that identify the run.
    """

    def __init__(self, checkpoint: Checkpoint, identity: dict[str, str]):
        import orbax.checkpoint as ocp  # imported here because it takes a second or two

        self.args, self.checkpoint, self.identity = ocp.args, checkpoint, identity
        self.folder = Path(checkpoint.folder).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=checkpoint.keep, enable_async_checkpointing=False
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def keep(self, run, *, is_last):
        at_end = run.step == 0 and run.epoch % self.checkpoint.every == 0
        within = run.step and self.checkpoint.steps and not run.step % self.checkpoint.steps
        if at_end or within or is_last:
            self._save(run)

    def latest(self, start):
        number = self.manager.latest_step()
        if number is None:
            return start
        facts = self._read(number, facts=self.args.JsonRestore())
        differ = self._find_differences(facts["identity"])
        leaves, structure = jax.tree.flatten(start.arrays)
        full = [i for i, leaf in enumerate(leaves) if leaf.size]
        wanted = self.args.StandardRestore([leaves[i] for i in full])
        for i, leaf in zip(full, self._read(number, arrays=wanted), strict=True):
            leaves[i] = leaf
        if digest(leaves) != facts["digest"]:
            raise self._damaged(number)
        run = Run.of(jax.tree.unflatten(structure, leaves), facts)
        optimizer = take_schedule(run.state.optimizer, start.state.optimizer)
        state = run.state._replace(optimizer=optimizer)
        return run._replace(state=state, stopped=run.stopped and not differ)

    def _save(self, run: Run) -> None:
        leaves = jax.tree.leaves(run.arrays)
        facts = run.facts | {"identity": self.identity, "digest": digest(leaves)}
        # Orbax refuses arrays without elements, such as the weights of a context that is not there.
        arrays = self.args.StandardSave([leaf for leaf in leaves if leaf.size])
        items = {"arrays": arrays, "facts": self.args.JsonSave(facts)}
        try:
            self.manager.save(run.total, args=self.args.Composite(**items), force=True)
        except Exception as error:  # a failing disk must not end the run
            warnings.warn(f"No checkpoint in {self.folder}: {error}", stacklevel=2)
            for unfinished in self.folder.glob(f"{run.total}.*"):
                shutil.rmtree(unfinished, ignore_errors=True)

    def _read(self, number: int, **items: Any) -> Any:
        try:
            (found,) = self.manager.restore(number, args=self.args.Composite(**items)).values()
        except Exception as error:
            raise self._damaged(number) from error
        return found

    def _damaged(self, number: int) -> ValueError:
        return ValueError(
            f"Expected a whole checkpoint, got a damaged one: delete {self.folder / str(number)} "
            f"to go on from the one before it."
        )

    def _find_differences(self, found: dict[str, str]) -> set[str]:
        """Return how the run of a checkpoint differs from this run, if the user allows it."""
        differ = {name for name, value in self.identity.items() if found.get(name) != value}
        if differ - (_EXTENDABLE if self.checkpoint.extend else set()):
            mend = ", or extend=True" if differ <= _EXTENDABLE else ""
            raise ValueError(
                f"Expected a checkpoint of this run in {self.folder}, got one of a run with "
                f"another {', '.join(sorted(differ))}: give another folder{mend}, or delete it."
            )
        return differ


def open_store(checkpoint: Checkpoint | None, identity: Callable[[], dict[str, str]]) -> NoStore:
    """Return the store of a run's checkpoints, or a `NoStore` without a `checkpoint`."""
    return NoStore() if checkpoint is None else Store(checkpoint, identity())


def digest(tree: Any) -> str:
    """Return a digest of the values and the structure of a pytree.

    A `numpy.memmap` contributes 1,000 to 2,000 evenly spaced rows, or all if it has fewer. An array
    that is split over several processes contributes nothing.
    """
    leaves, structure = jax.tree.flatten(tree)
    found = hashlib.sha256(_drop_addresses(structure).encode())
    for leaf in leaves:
        found.update(_convert_to_bytes(leaf))
    return found.hexdigest()


def _convert_to_bytes(leaf: Any) -> bytes:
    if isinstance(leaf, jax.Array):
        if is_key(leaf):
            leaf = jax.random.key_data(leaf)
        if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return b""  # other processes hold parts of the array
    if isinstance(leaf, np.memmap):  # too large to read in full
        leaf = np.asarray(leaf[:: max(1, len(leaf) // 1000)])
    if isinstance(leaf, jax.Array | np.ndarray):
        leaf = np.asarray(leaf)
        return f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes()
    return _drop_addresses(leaf).encode()


def _drop_addresses(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
