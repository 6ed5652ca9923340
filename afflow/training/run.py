"""Where a training run stands."""

from typing import Any, NamedTuple

import numpy as np

from afflow.training.history import History


class State(NamedTuple):
    """The state that a step changes: parameters, optimizer, averaged parameters, statistics."""

    params: Any
    optimizer: Any
    average: Any
    statistics: Any  # of batches, and the keys of random layers

    @property
    def evaluated(self) -> tuple[Any, Any]:
        """The parameters to validate and to return, and the statistics."""
        return self.params if self.average is None else self.average, self.statistics


class Run(NamedTuple):
    """All that a training run goes on from: `state` and `best` in arrays, the rest in facts."""

    state: State
    best: Any
    best_loss: float = np.inf
    history: History = History([], [], 0)
    epoch: int = 0
    step: int = 0  # of this epoch
    loss_sum: float = 0.0  # over these steps
    total: int = 0  # steps of all epochs
    stopped: bool = False

    @staticmethod
    def of(arrays: tuple[State, Any], facts: dict[str, Any]) -> "Run":
        """Return the run that was kept as `arrays` and `facts`."""
        kept: dict[str, Any] = {name: facts[name] for name in Run._fields[2:]}
        kept["history"] = History(**kept["history"])
        return Run(*arrays, **kept)

    @property
    def arrays(self) -> tuple[State, Any]:
        """A pytree of arrays."""
        return self.state, self.best

    @property
    def facts(self) -> dict[str, Any]:
        """Everything else, as JSON has it."""
        facts = dict(zip(self._fields[2:], self[2:], strict=True))
        return facts | {"history": self.history._asdict()}

    def moved(self, state: State, steps: int, loss_sum: float) -> "Run":
        """Return the run after some steps more."""
        run = self._replace(state=state, loss_sum=self.loss_sum + loss_sum)
        return run._replace(step=self.step + steps, total=self.total + steps)

    def validated(self, train: float, validation: float | None) -> "Run":
        """Return the run at the end of its epoch, the better parameters kept."""
        history = self.history.after(train, validation)
        run = self._replace(history=history, epoch=self.epoch + 1, step=0, loss_sum=0.0)
        if validation is not None and not validation < self.best_loss:
            return run
        best_loss = np.inf if validation is None else validation
        history = history._replace(best_epoch=self.epoch)
        return run._replace(best=self.state.evaluated, best_loss=best_loss, history=history)

    def waited(self, patience: int | None) -> bool:
        """Return whether the best is `patience` epochs back."""
        return patience is not None and self.epoch - 1 - self.history.best_epoch >= patience
