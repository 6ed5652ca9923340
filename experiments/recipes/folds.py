"""The scores of finished folds in a file, so that a run that was killed resumes after them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from measuring.stopwatch import write_whole


def write_folds(done: list[np.ndarray], settings: dict[str, Any], folder: Path | None) -> None:
    """Write the scores of the rows of the finished folds to the folder, if there is one."""
    if folder is not None:
        content = {"settings": settings, "folds": [rows.tolist() for rows in done]}
        write_whole(folder / "folds.json", json.dumps(content))


def read_folds(settings: dict[str, Any], folder: Path | None) -> list[np.ndarray]:
    """Return the scores in the folder, or an empty list if there are none.

    Raises:
        ValueError: if the scores are from a run with other settings.
    """
    if folder is None or not (folder / "folds.json").exists():
        return []
    content = json.loads((folder / "folds.json").read_text())
    if content["settings"] != settings:
        raise ValueError(
            f"Expected folds of a run with {settings} in {folder}, got {content['settings']}: "
            f"give another folder, or delete it."
        )
    return [np.array(rows) for rows in content["folds"]]
