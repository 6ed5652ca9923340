"""Progress of a run that survives a kill: whole files, the cost of training, checkpoints."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import afflow


def write_whole(path: Path, text: str) -> None:
    """Write a file at once. After a kill the file is the old one or the new one, and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


class Stopwatch:
    """The CPU time of a run in core seconds, summed over its processes if they share a folder."""

    def __init__(self, folder: Path | None = None):
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
