"""The guide's table of binary density models, from the results files, with published scores.

    python experiments/binary_table.py

Replaces the text between two markers in `notebooks/results.md`.
"""

import json
from pathlib import Path

from measuring.report import RESULTS_PAGE
from measuring.tables import core_hours, with_table

FOLDER = Path(__file__).parent / "results" / "binary"
BEGIN, END = "<!-- binary table -->\n", "<!-- end of binary table -->\n"
SETS = "adult", "connect4", "dna", "mushrooms", "nips", "binarized_mnist"
# test log-likelihoods in nats, from 1502.03509, 1605.02226 and the papers that they cite
PUBLISHED = {
    "fvsbn": (-13.17, -12.39, -83.64, -10.27, -276.88, None),
    "nade": (-13.19, -11.99, -84.81, -9.81, -273.08, -88.33),
    "made": (-13.12, -11.90, -83.63, -9.68, -280.25, -88.40),
    "made_ensemble": (-13.13, -11.90, -79.66, -9.69, -277.28, -86.64),
    "eonade": (-13.19, -12.58, -82.31, -9.69, -272.39, -85.10),
}


def read(dataset: str, model: str, folder: Path = FOLDER) -> dict | None:
    """Return the content of a results file, or `None` if there is no such file."""
    path = folder / f"{dataset}-{model}.json"
    return json.loads(path.read_text()) if path.exists() else None


def score(content: dict) -> str:
    """Return our score with two standard errors."""
    test = content["results"]["test"]
    return f"{test['nats']:.2f} ± {test['two_standard_errors']:.2f}"


def cell(dataset: str, model: str, folder: Path = FOLDER) -> str:
    """Return our score, with the published score and the cost in brackets, or an empty string."""
    content = read(dataset, model, folder)
    if content is None:
        return ""
    notes = published(dataset, model) or "-", core_hours(content)
    return f"{score(content)} ({', '.join(filter(None, notes))})"


def published(dataset: str, model: str) -> str:
    """Return the published score, or an empty string."""
    figures = dict(zip(SETS, PUBLISHED.get(model, (None,) * len(SETS)), strict=True))
    return f"{figures[dataset]:.2f}" if figures.get(dataset) else ""


def text_table(dataset: str, folder: Path = FOLDER) -> str:
    """Return the scores of one data set beside the published scores."""
    names = [path.stem.split("-")[1] for path in sorted(folder.glob(f"{dataset}-*.json"))]
    files = [read(dataset, name, folder) for name in names]
    rows = [
        (name, score(file), published(dataset, name))
        for name, file in zip(names, files, strict=True)
        if file
    ]
    head = dataset, "test log-likelihood, nats", "published"
    return "\n".join(f"{a:<18}{b:>26}{c:>12}" for a, b, c in (head, *rows))


def markdown_table() -> str:
    """Return the cells of all data sets."""
    lines = ["| | " + " | ".join(SETS) + " |", "|---" * (len(SETS) + 1) + "|"]
    for model in PUBLISHED:
        lines.append(f"| `{model}` | {' | '.join(cell(name, model) for name in SETS)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = RESULTS_PAGE.read_text()
    RESULTS_PAGE.write_text(with_table(text, markdown_table(), BEGIN, END))
