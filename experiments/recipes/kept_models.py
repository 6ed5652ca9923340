"""Trainings one after the other; each model is kept in a file when its training has ended."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring.stopwatch import Stopwatch

import afflow


@dataclass(frozen=True)
class KeptModels:
    """Trainings whose models are kept in a folder.

    A stage that has ended is read from its file. A stage that was stopped goes on from its
    checkpoint.

    Attributes:
        folder: the folder of the models and checkpoints.
        minutes: the time limit of a stage, in minutes of one CPU core.
        settings: the settings that decide the models; a stage of other settings is refused.
    """

    folder: Path
    minutes: float
    settings: dict[str, Any]

    def train(
        self,
        name: str,
        make: Callable[[], Any],
        x: np.ndarray,
        changes: Sequence[Callable[[Any], Any]] = (lambda model: model,),
        **options: Any,
    ) -> Any:
        """Return the trained model of a stage.

        The model is fitted after each of the changes. Each of the `n` fits has an equal share of
        the time. It ends after the epoch in which its share is over. The epochs of earlier runs
        count.

        Args:
            name: the name of the stage.
            make: returns the model before training.
            x: the rows.
            changes: functions from a model to a model, called before a fit.
            **options: the options of `fit`.

        Raises:
            ValueError: for a stage of other settings.
        """
        model_path, record_path = (self.folder / f"{name}.{kind}" for kind in ("zip", "json"))
        watch = Stopwatch(self.folder / name, self.settings)
        if record_path.exists():  # written last
            return afflow.load(model_path)
        model = make()
        losses: dict[str, list[float]] = {"train": [], "validation": []}
        for number, change in enumerate(changes):
            share = self.minutes * (number + 1) / len(changes)
            model, history = afflow.fit(
                change(model),
                x,
                ema=None,
                checkpoint=afflow.Checkpoint(self.folder / f"{name}_{number}", steps=100),
                callbacks=[watch.stop_after(share)],
                label=f"{name} {number + 1}/{len(changes)}",
                **options,
            )
            losses["train"] += history.train
            losses["validation"] += history.validation
        record = {**losses, "core_seconds": watch.read()}
        afflow.save(model, model_path)
        record_path.write_text(json.dumps(record, indent=1))
        return model

    def read_records(self) -> dict[str, dict[str, Any]]:
        """Return the losses and the seconds of the stages that have ended, by name."""
        return {path.stem: json.loads(path.read_text()) for path in self.folder.glob("*.json")}
