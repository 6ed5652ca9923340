"""The guide's benchmark table, from the results files, beside the published rows.

    python experiments/table.py

Replaces the text between two markers in `notebooks/results.md`.
"""

import json
from pathlib import Path

from measuring.report import RESULTS_PAGE

ROOT = Path(__file__).parent
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


def measured(folder: Path) -> dict[str, dict[str, str]]:
    """Return the scores of our runs, by model and data set."""
    rows: dict[str, dict[str, str]] = {}
    gaussians = read(folder / "gaussians.json")["test"]
    rows["afflow: Gaussian"] = {name: cell(score) for name, score in gaussians.items()}
    runs = [read(path) for path in sorted((folder / "density").glob("*.json"))]
    for model, label in MODELS.items():
        scores = {run["dataset"]: trained(run) for run in runs if run["model"] == model}
        rows |= {label: scores} if scores else {}
    return rows


def read(path: Path) -> dict:
    """Return the results in a file."""
    return json.loads(path.read_text())["results"]


def cell(score: dict[str, float]) -> str:
    """Return a score with two standard errors, rounded to one or two digits."""
    digits = 1 if abs(score["nats"]) > 1000 else 2
    return f"{score['nats']:.{digits}f} ± {score['two_standard_errors']:.{digits}f}"


def trained(run: dict) -> str:
    """Return the score of a training run, and its number of epochs."""
    return f"{cell(run['test'])} ({run['epochs']} epochs)"


def table(folder: Path = ROOT / "results") -> str:
    """Return the table in Markdown, with the data sets of our runs."""
    ours = measured(folder)
    sets = [name for name in SETS if any(name in scores for scores in ours.values())]
    lines = [["", *(SETS[name] for name in sets)], ["---"] * (len(sets) + 1)]
    for label, scores in (PUBLISHED | ours).items():
        lines.append([label, *(scores.get(name, "") for name in sets)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_table(text: str, rows: str, begin: str = BEGIN, end: str = END) -> str:
    """Return the text with `rows` between the markers."""
    head, rest = text.split(begin)
    return head + begin + rows + end + rest.split(end)[1]


if __name__ == "__main__":
    RESULTS_PAGE.write_text(with_table(RESULTS_PAGE.read_text(), table()))
