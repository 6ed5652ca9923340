"""The progress of a training run."""

from typing import Any, NamedTuple

import numpy as np

from afflow.training.history import History


class State(NamedTuple):
    """The state that a step changes: parameters, optimizer, averaged parameters, statistics."""

    params: Any
    optimizer: Any
    average: Any
    statistics: Any  # batch statistics, and the keys of random layers

    @property
    def evaluated(self) -> tuple[Any, Any]:
        """The parameters to validate and to return, and the statistics."""
        return self.params if self.average is None else self.average, self.statistics


class Run(NamedTuple):
    """The progress of a run: `state` and `best` are arrays, the other fields facts for JSON."""

    state: State
    best: Any
    best_loss: float = np.inf
    history: History = History([], [], 0)
    epoch: int = 0
    step: int = 0  # steps taken in this epoch
    loss_sum: float = 0.0  # over the steps of this epoch
    total: int = 0  # steps taken in all epochs
    stopped: bool = False

    @staticmethod
    def of(arrays: tuple[State, Any], facts: dict[str, Any]) -> "Run":
        """Return the run that was saved as `arrays` and `facts`."""
        kept: dict[str, Any] = {name: facts[name] for name in Run._fields[2:]}
        kept["history"] = History(**kept["history"])
        return Run(*arrays, **kept)

    @property
    def arrays(self) -> tuple[State, Any]:
        """The fields that hold arrays, as a pytree."""
        return self.state, self.best

    @property
    def facts(self) -> dict[str, Any]:
        """The other fields, as values that JSON can hold."""
        facts = dict(zip(self._fields[2:], self[2:], strict=True))
        return facts | {"history": self.history._asdict()}

    def moved(self, state: State, steps: int, loss_sum: float) -> "Run":
        """Return the run after `steps` more steps, with a new sum of losses."""
        run = self._replace(state=state, loss_sum=loss_sum)
        return run._replace(step=self.step + steps, total=self.total + steps)

    def validated(self, evaluated: Any, train: float, validation: float | None) -> "Run":
        """Return the run at the end of an epoch. Keep what was evaluated if it is the best."""
        history = self.history.after(train, validation)
        run = self._replace(history=history, epoch=self.epoch + 1, step=0, loss_sum=0.0)
        if validation is not None and not validation < self.best_loss:
            return run
        best_loss = np.inf if validation is None else validation
        history = history._replace(best_epoch=self.epoch)
        return run._replace(best=evaluated, best_loss=best_loss, history=history)

    def waited(self, patience: int | None) -> bool:
        """Return whether the best epoch is `patience` epochs ago."""
        return patience is not None and self.epoch - 1 - self.history.best_epoch >= patience
