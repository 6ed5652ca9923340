"""Callbacks: functions that run after each epoch, to inspect, log or stop training."""

import csv
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from afflow._tools.files import open_to_replace
from afflow.training.history import History


class Epoch(NamedTuple):
    """The state of training that a callback receives after an epoch.

    `model` is the model that was validated, and `history` the losses so far. `steps_per_second` is
    the speed of the epoch, without validation.
    """

    model: Any
    history: History
    steps_per_second: float

    @property
    def number(self) -> int:
        """The number of the epoch, from 0."""
        return len(self.history.train) - 1


Callback = Callable[[Epoch], bool | None]


class CSVLogger:
    """A callback that writes the losses of all epochs to a CSV file.

    The whole file is rewritten after each epoch. It is therefore complete for a resumed run too.

    Args:
        path: the file.

    Example:
        >>> import afflow, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "run.csv"
        >>> history = afflow.training.History([2.0, 1.0], [2.5, 1.5], 1)
        >>> afflow.training.CSVLogger(path)(afflow.training.Epoch(None, history, 10.0))
        >>> path.read_text().split()
        ['epoch,train,validation', '0,2.0,2.5', '1,1.0,1.5']
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __call__(self, epoch: Epoch) -> None:
        train, validation, _ = epoch.history
        with open_to_replace(self.path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["epoch", "train", "validation"])
            losses = zip_longest(train, validation, fillvalue="")
            table.writerows([number, *pair] for number, pair in enumerate(losses))


class ScalarLogger:
    """A callback that passes losses and speed to `writer.add_scalar(tag, value, step)`.

    TensorBoard's `SummaryWriter`, from `torch.utils.tensorboard` or `tensorboardX`, has this
    method.

    Args:
        writer: an object with the method `add_scalar`.

    Example:
        >>> import afflow
        >>> class Print:
        ...     def add_scalar(self, tag, value, step):
        ...         print(step, tag, value)
        >>> history = afflow.training.History([2.0, 1.0], [2.5, 1.5], 1)
        >>> afflow.training.ScalarLogger(Print())(afflow.training.Epoch(None, history, 10.0))
        1 loss/train 1.0
        1 loss/validation 1.5
        1 steps_per_second 10.0
    """

    def __init__(self, writer: Any):
        self.writer = writer

    def __call__(self, epoch: Epoch) -> None:
        losses = {"loss/train": epoch.history.train, "loss/validation": epoch.history.validation}
        scalars = {tag: values[-1] for tag, values in losses.items() if values}
        for tag, value in (scalars | {"steps_per_second": epoch.steps_per_second}).items():
            self.writer.add_scalar(tag, value, epoch.number)
