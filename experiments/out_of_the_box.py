"""Test log-likelihoods of the flows in the first lines of each library's README.

    python experiments/out_of_the_box.py --data-dir FOLDER
    python experiments/out_of_the_box.py --libraries afflow flowjax --sets digits

Nothing is tuned to a data set. Every library fits its default flow in its documented loop to the
same standardised rows. The seed determines the toy data, the split of sets without a published
split, the subset of large sets, and the initial weights. A run adds missing entries to the results
file, and replaces the table between two markers in `notebooks/results.md`. A picture has the scores
against the training times, which only newer entries have: `--timed` runs the older ones again.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import numpy as np
import tyro
from datasets import DENSITIES, bsds300, rnade
from measuring.report import RESULTS_PAGE, environment
from measuring.tables import format_mean, with_table
from peers.defaults import LIBRARIES, MODULES
from recipes.training_times import draw_times, has_times
from targets import toy_data
from tqdm import tqdm

BEGIN, END = "<!-- out of the box -->\n", "<!-- end of out of the box -->\n"
OUT = Path(__file__).parent / "results" / "out_of_the_box.json"
Library = Literal["afflow", "flowjax", "zuko", "nflows"]


class Rows(NamedTuple):
    """Rows for training and for testing."""

    train: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Config:
    """What to run. Entries that the results file already holds are not run again."""

    libraries: tuple[Library, ...] = ("afflow", "flowjax", "zuko", "nflows")
    models: tuple[Literal["maf", "nsf"], ...] = ("maf", "nsf")
    sets: tuple[str, ...] = ()
    """The data sets to run; all by default."""
    seeds: int = 5
    timed: bool = False
    """Run entries without a training time again, and replace them."""
    data_dir: Path | None = None
    out: Path = OUT


def published(name: str, config: Config, seed: int, most: int | None = None) -> Rows:
    """Return a set that has a test set; its validation rows are used for training, too.

    With `most`, a random subset of that many training rows is drawn.
    """
    split = DENSITIES[name](config.data_dir)
    train = np.concatenate([split.train, split.validation])
    chosen = np.random.default_rng(seed).permutation(len(train))[:most]
    return Rows(train[chosen], split.test)


def patches(config: Config, seed: int) -> Rows:
    """Return 20,000 patches of BSDS300 for training, and 20,000 for testing."""
    split = bsds300(config.data_dir, sizes=(18_000, 2_000, 20_000))
    return Rows(np.concatenate([split.train, split.validation]), split.test)


def a_fifth(x: np.ndarray, seed: int) -> Rows:
    """Return the rows in random order: four fifths for training, one fifth for testing."""
    x = np.random.default_rng(seed).permutation(np.asarray(x, np.float64))
    return Rows(x[len(x) // 5 :], x[: len(x) // 5])


def scikit(name: str, config: Config, seed: int) -> Rows:
    """Return a table that comes with scikit-learn."""
    import sklearn.datasets

    return a_fifth(getattr(sklearn.datasets, f"load_{name}")().data, seed)


def red_wine(config: Config, seed: int) -> Rows:
    """Return the physical and chemical columns of red wines."""
    return a_fifth(rnade("red_wine", config.data_dir), seed)


def toy(name: str, config: Config, seed: int) -> Rows:
    """Return 10,000 rows of a density in the plane for training, and 10,000 for testing."""
    x = toy_data.DENSITIES[name](np.random.default_rng(100 + seed), 20_000)
    return Rows(x[:10_000], x[10_000:])


def student_t(config: Config, seed: int) -> Rows:
    """Return 5,000 rows of three independent Student t with two degrees of freedom.

    There are 20,000 rows for testing.
    """
    x = np.random.default_rng(200 + seed).standard_t(2, (25_000, 3))
    return Rows(x[:5_000], x[5_000:])


SETS: dict[str, Callable[[Config, int], Rows]] = {
    "wine": partial(scikit, "wine"),
    "breast_cancer": partial(scikit, "breast_cancer"),
    "red_wine": red_wine,
    "digits": partial(published, "digits"),
    "miniboone_small": partial(published, "miniboone_small"),
    "two_moons": partial(toy, "two_moons"),
    "checkerboard": partial(toy, "checkerboard"),
    "spirals": partial(toy, "spirals"),
    "eight_gaussians": partial(toy, "eight_gaussians"),
    "student_t": student_t,
    "bsds300": patches,
    "power": partial(published, "power", most=100_000),
}


def score(rows: Rows, library: str, model: str, seed: int) -> dict[str, float]:
    """Return the mean, median and worst test log-density, and the seconds of training.

    The log-densities are in nats in the original units. The seconds include compilation.
    """
    mean = rows.train.mean(0, dtype=np.float64)
    std = rows.train.std(0, dtype=np.float64)
    train, test = (((part - mean) / std).astype(np.float32) for part in rows)
    for module in MODULES[library]:
        import_module(module)
    jax.clear_caches()  # or only the first seed would pay for compilation
    start = time.perf_counter()
    log_prob = LIBRARIES[library](model, train, seed)
    seconds = time.perf_counter() - start
    nats = log_prob(test) - np.log(std).sum()
    summary = {"mean": nats.mean(), "median": float(np.median(nats)), "worst": nats.min()}
    return summary | {"seconds": seconds}


def table(results: dict[str, dict[str, float]]) -> str:
    """Return a Markdown table: mean test nats over seeds, and their standard error."""
    columns = list(product(("maf", "nsf"), LIBRARIES))
    header = "| | " + " | ".join(f"{library}, {model}" for model, library in columns) + " |"
    lines = [header, "|---" * (len(columns) + 1) + "|"]
    for name in SETS:
        cells = [_cell(results, f"{name} {model} {library} ") for model, library in columns]
        if any(cells):
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(results: dict[str, dict[str, float]], start: str) -> str:
    return format_mean([v["mean"] for key, v in results.items() if key.startswith(start)])


def is_missing(result: dict[str, float] | None, config: Config) -> bool:
    """Return whether an entry of the results file is to be run."""
    return result is None or (config.timed and "seconds" not in result)


def main(config: Config) -> None:
    """Fit the missing entries, and write each result at once."""
    results = json.loads(config.out.read_text())["results"] if config.out.exists() else {}
    names = config.sets or tuple(SETS)
    runs = list(product(range(config.seeds), names, config.models, config.libraries))
    for seed, name, model, library in (bar := tqdm(runs)):
        key = f"{name} {model} {library} {seed}"
        if not is_missing(results.get(key), config):
            continue
        bar.set_description(key)
        results[key] = score(SETS[name](config, seed), library, model, seed)
        content = {"environment": environment(), "results": results}
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(json.dumps(content, indent=1, default=float) + "\n")
    if has_times(results):
        draw_times(results, config.out.with_name(f"{config.out.stem}_time.png"))
    if config.out == OUT:
        text = RESULTS_PAGE.read_text()
        RESULTS_PAGE.write_text(with_table(text, table(results), BEGIN, END))


if __name__ == "__main__":
    main(tyro.cli(Config))
