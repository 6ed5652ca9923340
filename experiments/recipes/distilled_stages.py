"""The stages of a distillation: checkpoints, limits of time, histories and seconds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from measuring.stopwatch import Stopwatch

import afflow


@dataclass
class Stages:
    """A runner of training functions one after the other.

    Attributes:
        folder: the folder of the checkpoints.
        label: the name of the task, in front of the names of the stages.
        settings: the settings of the run, with `minutes`, the time of one CPU core after which a
            stage ends with its epoch, and `seed`, which decides the keys of all stages.
        histories: the history of every stage that has ended.
        core_seconds: the cost of every stage that has ended.
    """

    folder: Path
    label: str
    settings: dict[str, Any]
    histories: dict[str, afflow.training.History] = field(default_factory=dict)
    core_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.settings["seed"]

    def run(self, stage: str, fit: Callable, *args: Any, **options: Any) -> afflow.Flow:
        """Return the flow that `fit(*args, **options)` trains; a killed stage resumes."""
        folder = self.folder / f"distillation_{self.label}_{stage}"
        watch = Stopwatch(folder, self.settings)
        flow, self.histories[stage] = fit(
            *args,
            key=jax.random.fold_in(jax.random.key(self.seed), len(self.core_seconds)),
            checkpoint=afflow.Checkpoint(folder / "steps"),
            callbacks=[watch.stop_after(self.settings["minutes"])],
            label=stage,
            **options,
        )
        self.core_seconds[stage] = watch.read()
        return flow

    def report(self) -> dict[str, Any]:
        """Return the core seconds and the histories of all stages."""
        histories = {stage: history._asdict() for stage, history in self.histories.items()}
        return {"core_seconds": self.core_seconds, "histories": histories}


def convert(estimate: afflow.inference.Estimate) -> dict[str, float]:
    """Return an estimate as numbers."""
    return {name: float(value) for name, value in estimate._asdict().items()}
