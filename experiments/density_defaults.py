"""Test log-likelihoods of density models of binary data, with every default of the library.

    python experiments/density_defaults.py --data-dir FOLDER
    python experiments/density_defaults.py --sets digits      # needs no download

Nothing is chosen for a data set: the models have the defaults of their factories, and `fit` its
own. The validation rows of the published splits end the training. A run adds missing entries to the
results file, and replaces the table between two markers in `notebooks/results.md`.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from binary_density import log_probs
from datasets import Split, binary
from flax import nnx
from measuring.report import RESULTS_PAGE, environment, keep_programs
from measuring.tables import format_mean, with_table
from tqdm import tqdm

import afflow

BEGIN, END = "<!-- density defaults -->\n", "<!-- end of density defaults -->\n"
OUT = Path(__file__).parent / "results" / "density_defaults.json"
Set = Literal["digits", "adult", "connect4", "dna", "mushrooms", "nips"]
MODELS: dict[str, Callable[..., Any]] = {
    "fvsbn": afflow.fvsbn,
    "nade": afflow.nade,
    "made_model": afflow.made_model,
    "made_ensemble": afflow.zoo.made_ensemble,
    "eonade": afflow.zoo.eonade,
}


@dataclass(frozen=True)
class Config:
    """What to run. Entries that the results file already holds are not run again."""

    sets: tuple[Set, ...] = ("digits", "adult", "connect4", "dna", "mushrooms", "nips")
    models: tuple[str, ...] = tuple(MODELS)
    seeds: int = 1
    data_dir: Path | None = None
    out: Path = OUT


def score(name: str, data: Split, seed: int) -> dict[str, float]:
    """Return the mean test log-likelihood in nats, and the seconds and epochs of training."""
    start = time.perf_counter()
    model, history = afflow.fit(
        MODELS[name](data.train.shape[1], rngs=nnx.Rngs(seed)),
        data.train,
        validation=data.validation,
        key=jax.random.key(seed),
        label=name,
    )
    seconds = time.perf_counter() - start
    nats = log_probs(model, data.test).mean()
    return {"mean": nats, "seconds": seconds, "epochs": len(history.train)}


def table(results: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table: mean test nats over seeds ± their standard error."""
    sets = [name for name in Config().sets if any(key.startswith(f"{name} ") for key in results)]
    lines = ["| | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for model in MODELS:
        cells = [_cell(results, name, model) for name in sets]
        lines.append(f"| `{model}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(results: dict[str, dict[str, float]], name: str, model: str) -> str:
    start = f"{name} {model} "
    return format_mean([v["mean"] for key, v in results.items() if key.startswith(start)])


def main(config: Config) -> None:
    """Fit the missing entries, and write each result at once."""
    keep_programs()
    results = json.loads(config.out.read_text())["results"] if config.out.exists() else {}
    for seed, name, model in tqdm(list(product(range(config.seeds), config.sets, config.models))):
        key = f"{name} {model} {seed}"
        if key in results:
            continue
        results[key] = score(model, binary(name, config.data_dir), seed)
        content = {"environment": environment(), "results": results}
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(content, indent=1) + "\n")
    if config.out == OUT:
        text = RESULTS_PAGE.read_text()
        RESULTS_PAGE.write_text(with_table(text, table(results), BEGIN, END))


if __name__ == "__main__":
    main(tyro.cli(Config))
