"""Distil autoregressive teachers into students that sample in one pass.

    python experiments/distillation.py --task tabular --data digits
    python experiments/distillation.py --task tabular --data power --data-dir FOLDER

A masked autoregressive flow is trained on a table. An inverse autoregressive flow is fitted to the
density of this teacher, without data. The divergence per dimension, the test scores of both and
the times of 1,000 samples go to `results/distillation`. Held-out noise chooses the student; the
test rows are scored once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib

matplotlib.use("Agg")
import tyro
from measuring.report import keep_programs, save
from recipes.distilled_tables import distil_table

ROOT = Path(__file__).parent
TASKS = {"tabular": distil_table}


@dataclass(frozen=True)
class Config:
    """The task, its data, and the folders."""

    task: Literal["tabular"] = "tabular"
    data: Literal["power", "digits"] = "digits"
    small: bool = False
    """Use tiny models and a few steps, as a trial."""
    minutes: float = 10.0
    """A stage of training ends after the epoch in which this time is over."""
    seed: int = 0
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "distillation"
    runs: Path = ROOT.parent / "runs"


def main(config: Config) -> None:
    """Run the task and write its results."""
    keep_programs()
    results = TASKS[config.task](config)
    save(config.out / f"{config.data}.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
