"""The guide's benchmark table, from the results files, beside the published rows.

    python experiments/table.py
    python experiments/table.py --reproduce dna --model made --data-dir FOLDER

The first command replaces the text between two markers in `notebooks/results.md`. The second
command trains one model again with the settings in its results file. It says whether the committed
figure lies within two standard errors of the new one, by its exit status too: 0 if so, 1 if not.
After a kill, the same command resumes.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from measuring.report import RESULTS_PAGE, keep_programs
from measuring.tables import core_hours, with_table
from recipes.reproduction import reproduce

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
BEGIN, END = "<!-- benchmark table -->\n", "<!-- end of benchmark table -->\n"
SETS = {
    "power": "POWER",
    "gas": "GAS",
    "hepmass": "HEPMASS",
    "miniboone": "MINIBOONE",
    "bsds300": "BSDS300",
    "mnist": "MNIST, logits",
    "miniboone_small": "MINIBOONE, small",
}
MODELS = {
    "maf": "afflow: affine maps",
    "mixture": "afflow: mixture CDFs",
    "nsf": "afflow: splines",
    "tnaf": "afflow: transformer",
}
MAF_PAPER = "[1705.07057](https://arxiv.org/abs/1705.07057)"
NSF_PAPER = "[1906.04032](https://arxiv.org/abs/1906.04032)"
PUBLISHED = {
    f"Gaussian, {MAF_PAPER}": {
        "power": "-7.74 ± 0.02",
        "gas": "-3.58 ± 0.75",
        "hepmass": "-27.93 ± 0.02",
        "miniboone": "-37.24 ± 1.07",
        "bsds300": "96.67 ± 0.25",
    },
    f"MAF (5), {MAF_PAPER}": {
        "power": "0.14 ± 0.01",
        "gas": "9.07 ± 0.02",
        "hepmass": "-17.70 ± 0.02",
        "miniboone": "-11.75 ± 0.44",
        "bsds300": "155.69 ± 0.28",
        "mnist": "-1300.5",
    },
    f"MAF (10), {MAF_PAPER}": {
        "power": "0.24 ± 0.01",
        "gas": "10.08 ± 0.02",
        "hepmass": "-17.73 ± 0.02",
        "miniboone": "-12.24 ± 0.45",
        "bsds300": "154.93 ± 0.28",
        "mnist": "-1313.1",
    },
    f"MADE of Gaussian mixtures, {MAF_PAPER}": {
        "power": "0.40 ± 0.01",
        "gas": "8.47 ± 0.02",
        "hepmass": "-15.15 ± 0.02",
        "miniboone": "-12.27 ± 0.47",
        "bsds300": "153.71 ± 0.28",
        "mnist": "-1038.5",
    },
    f"MAF (5), base of Gaussian mixtures, {MAF_PAPER}": {
        "power": "0.30 ± 0.01",
        "gas": "9.59 ± 0.02",
        "hepmass": "-17.39 ± 0.02",
        "miniboone": "-11.68 ± 0.44",
        "bsds300": "156.36 ± 0.28",
        "mnist": "-1100.3",
    },
    f"MAF, residual, LU, {NSF_PAPER}": {
        "power": "0.45",
        "gas": "12.35",
        "hepmass": "-17.03",
        "miniboone": "-10.92",
        "bsds300": "156.95",
    },
    f"RQ-NSF (AR), {NSF_PAPER}": {
        "power": "0.66",
        "gas": "13.09",
        "hepmass": "-14.01",
        "miniboone": "-9.22",
        "bsds300": "157.31",
    },
}


@dataclass(frozen=True)
class Config:
    """Write the table, or reproduce one figure of the guide."""

    reproduce: str | None = None
    """The data set of the figure, for example power, dna or red_wine."""
    model: str | None = None
    """The model of the figure, for example nsf, made or rnade_gaussians."""
    data_dir: Path | None = None
    out: Path = ROOT.parent / "runs" / "reproduced"
    """The folder for the new results and the checkpoints; delete it to start anew."""


def measured(folder: Path) -> dict[str, dict[str, str]]:
    """Return the scores of our runs, by model and data set."""
    rows: dict[str, dict[str, str]] = {}
    gaussians = read(folder / "gaussians.json")["results"]["test"]
    rows["afflow: Gaussian"] = {name: cell(score) for name, score in gaussians.items()}
    files = [read(path) for path in sorted((folder / "density").glob("*.json"))]
    for model, label in MODELS.items():
        chosen = [file for file in files if file["results"]["model"] == model]
        scores = {file["results"]["dataset"]: trained(file) for file in chosen}
        rows |= {label: scores} if scores else {}
    return rows


def read(path: Path) -> dict:
    """Return the content of a results file."""
    return json.loads(path.read_text())


def cell(score: dict[str, float]) -> str:
    """Return a score with two standard errors, rounded to one or two digits."""
    digits = 1 if abs(score["nats"]) > 1000 else 2
    return f"{score['nats']:.{digits}f} ± {score['two_standard_errors']:.{digits}f}"


def trained(file: dict) -> str:
    """Return the score of a training run, its number of epochs and its cost."""
    results, cost = file["results"], core_hours(file)
    notes = [f"{results['epochs']} epochs", *([cost] if cost else [])]
    return f"{cell(results['test'])} ({', '.join(notes)})"


def table(folder: Path = RESULTS) -> str:
    """Return the table in Markdown, with the data sets of our runs."""
    ours = measured(folder)
    sets = [name for name in SETS if any(name in scores for scores in ours.values())]
    lines = [["", *(SETS[name] for name in sets)], ["---"] * (len(sets) + 1)]
    for label, scores in (PUBLISHED | ours).items():
        lines.append([label, *(scores.get(name, "") for name in sets)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(config: Config) -> int:
    """Write the table, or reproduce a figure; return the exit status."""
    if (config.reproduce is None) != (config.model is None):
        raise ValueError("Expected both --reproduce and --model or neither, got only one of them.")
    if config.reproduce is None:
        text = RESULTS_PAGE.read_text()
        RESULTS_PAGE.write_text(with_table(text, table(), BEGIN, END))
        return 0
    keep_programs()
    comparison = reproduce(config.reproduce, config.model, RESULTS, config.out, config.data_dir)
    print(comparison)
    return 0 if comparison.agrees else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
