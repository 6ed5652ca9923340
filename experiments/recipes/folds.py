"""The scores of finished folds in a file, so that a run that was killed resumes after them."""

import json
from pathlib import Path

import numpy as np
from measuring.stopwatch import write_whole


def write_folds(done: list[np.ndarray], folder: Path | None) -> None:
    """Write the scores of the rows of the finished folds to the folder, if there is one."""
    if folder is not None:
        write_whole(folder / "folds.json", json.dumps([rows.tolist() for rows in done]))


def read_folds(folder: Path | None) -> list[np.ndarray]:
    """Return the scores in the folder, or an empty list if there are none."""
    if folder is None or not (folder / "folds.json").exists():
        return []
    return [np.array(rows) for rows in json.loads((folder / "folds.json").read_text())]
