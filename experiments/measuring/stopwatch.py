"""Progress of a run that survives a kill: whole files, the cost of training, checkpoints."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import afflow

_PLACES = ("data_dir", "out", "runs", "save", "resume")  # fields of configurations


def write_whole(path: Path, text: str) -> None:
    """Write a file at once. After a kill the file is the old one or the new one, and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run into its folder, or compare them with those that are there.

    Checkpoints do not know the settings of an optimizer or of a callback. Folders of data and
    results are not compared.

    Raises:
        ValueError: if the folder is of a run with other settings.
    """
    text = json.dumps({k: v for k, v in settings.items() if k not in _PLACES}, default=str)
    path, settings = folder / "settings.json", json.loads(text)
    if not path.exists():
        write_whole(path, text)
    found = json.loads(path.read_text())
    differ = sorted(k for k in {*found, *settings} if found.get(k) != settings.get(k))
    if differ:
        raise ValueError(
            f"Expected a run with these settings in {folder}, got one with another "
            f"{', '.join(differ)}: give another folder, or delete it."
        )


class Stopwatch:
    """The CPU time of a run in core seconds, summed over its processes if they share a folder.

    Args:
        folder: the folder of the run, if it has one.
        settings: the settings of the run, which `claim` writes and compares.
    """

    def __init__(self, folder: Path | None = None, settings: dict[str, Any] | None = None):
        if folder is not None and settings is not None:
            claim(folder, settings)
        self.path = None if folder is None else folder / "seconds"
        kept = self.path is not None and self.path.exists()
        self.before = float(self.path.read_text()) if kept else 0.0
        self.start = time.process_time()

    def read(self) -> float:
        """Return the core seconds so far."""
        return self.before + time.process_time() - self.start

    def report(self, history: afflow.training.History, size: float = 1.0) -> dict[str, Any]:
        """Return the losses of a fit in nats per `size`, its best epoch, and the core seconds."""
        return {
            "train": [loss / size for loss in history.train],
            "validation": [loss / size for loss in history.validation],
            "best_epoch": history.best_epoch,
            "core_seconds": self.read(),
        }

    def keep(self, *_: object) -> None:
        """Write the core seconds so far to the folder. It is a callback for `afflow.fit`."""
        if self.path is not None:
            write_whole(self.path, str(self.read()))

    def stop_after(self, minutes: float) -> Callable[[object], bool]:
        """Return a callback that keeps the time, and ends a fit when so many minutes are over."""

        def is_over(_: object) -> bool:
            self.keep()
            return self.read() > 60 * minutes

        return is_over


def make_checkpoint(folder: Path | None, epochs: int) -> afflow.Checkpoint | None:
    """Return a place for about twenty checkpoints in `epochs` epochs, or `None` without a folder.

    Checkpoints after every epoch would double the time of the shortest runs.
    """
    return None if folder is None else afflow.Checkpoint(folder / "steps", every=-(-epochs // 20))
