"""Distil autoregressive teachers into students that sample in one pass.

    python experiments/distillation.py --task tabular --data digits
    python experiments/distillation.py --task tabular --data power --data-dir FOLDER
    python experiments/distillation.py --task speech --data-dir FOLDER --minutes 20

Tables: a masked autoregressive flow is trained on a table. An inverse autoregressive flow is fitted
to the density of this teacher, without data. The divergence per dimension, the test scores of both
and the times of 1,000 samples go to `results/distillation`. Held-out noise chooses the student; the
test rows are scored once.

Speech: a WaveNet with a normal density for each sample is trained on spoken digits. Four inverse
autoregressive flows with WaveNets start on the noise that the teacher finds in the recordings, and
are distilled by the divergence of normals and a loss on spectra. The divergence per sample, the
times of a second of speech, and sounds of both go to the same folder.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import matplotlib

matplotlib.use("Agg")
import tyro
from measuring.report import keep_programs, save
from recipes.distilled_speech import distil_speech
from recipes.distilled_tables import distil_table
from recipes.spoken_flows import Sizes

ROOT = Path(__file__).parent
TASKS = {"tabular": distil_table, "speech": distil_speech}


@dataclass(frozen=True)
class Config:
    """The task, its data, and the folders."""

    task: Literal["tabular", "speech"] = "tabular"
    data: Literal["power", "digits"] = "digits"
    """The table of the tabular task."""
    small: bool = False
    """Use tiny models and a few steps, as a trial."""
    speech: Sizes = field(default_factory=Sizes)
    """The sizes of the speech task."""
    minutes: float = 10.0
    """A stage of training ends after the epoch in which this time of one CPU core is over."""
    seed: int = 0
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "distillation"
    runs: Path = ROOT.parent / "runs"

    @property
    def label(self) -> str:
        """The name of the files of this run."""
        label = self.data if self.task == "tabular" else self.task
        return f"{label}_small" if self.small else label


def main(config: Config) -> None:
    """Run the task and write its results."""
    keep_programs()
    results = TASKS[config.task](config)
    save(config.out / f"{config.label}.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
