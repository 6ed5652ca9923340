"""One table: a task, its lines of code, seconds and score in afflow and in another library.

    python experiments/libraries.py --data-dir FOLDER    # extra `peers`
    python experiments/libraries.py --tasks guide --seeds 1

The functions are in `peers/tasks.py`. The seconds are those of the first seed, compiling included,
in a new process. The simulations and their posterior are from `sbi_peers.py`. A run adds missing
rows to the results file, and replaces the table between two markers in `notebooks/coming_from.md`.
"""

import inspect
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sbi_peers
import tyro
from anomalies import breast_cancer
from measuring.report import RESULTS_PAGE, save
from measuring.tables import with_table
from out_of_the_box import SETS
from out_of_the_box import Config as Data
from peers import tasks

PAGE = RESULTS_PAGE.with_name("coming_from.md")
BEGIN, END = "<!-- libraries -->\n", "<!-- end of libraries -->\n"
HERE = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Config:
    """The tasks to run. Rows that the results file already holds are not run again."""

    tasks: tuple[str, ...] = ("table", "guide", "anomalies")
    seeds: int = 3
    data_dir: Path | None = None
    out: Path = HERE / "libraries.json"


class Task(NamedTuple):
    """A task, the score that its functions return, and the functions by library."""

    title: str
    score: str
    inputs: Callable[[Config, int], tuple[Any, ...]]
    libraries: dict[str, Callable[..., float]]


def find_rows(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return standardised rows of red wine, to train on and to test."""
    train, test = SETS["red_wine"](Data(data_dir=config.data_dir), seed)
    mean, std = train.mean(0), train.std(0)
    return tuple(((part - mean) / std).astype(np.float32) for part in (train, test))


def find_tumours(config: Config, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return normal rows, rows to rank, and which of these are anomalies."""
    rows = breast_cancer(seed)
    test = np.concatenate([rows.normal, rows.anomalies])
    return rows.train, test, np.arange(len(test)) >= len(rows.normal)


def find_schools(config: Config, seed: int) -> tuple[Callable]:
    """Return the model of the eight schools in NumPyro."""
    from numpyro_posteriors import eight_schools

    return (eight_schools,)


TASKS = {
    "table": Task(
        "density of 1,599 red wines by splines",
        "test log-density, nats",
        find_rows,
        {
            "flowjax": tasks.table_by_flowjax,
            "distrax": tasks.table_by_distrax,
            "afflow": tasks.table_by_afflow,
        },
    ),
    "guide": Task(
        "inverse autoregressive guide of the eight schools",
        "evidence lower bound, nats",
        find_schools,
        {"numpyro": tasks.guide_by_numpyro, "afflow": tasks.guide_by_afflow},
    ),
    "anomalies": Task(
        "malignant tumours among benign ones",
        "area under the ROC curve",
        find_tumours,
        {"scikit-learn": tasks.anomalies_by_sklearn, "afflow": tasks.anomalies_by_afflow},
    ),
}


IMPORTS = {
    "afflow": ["afflow"],
    "distrax": ["distrax"],
    "flowjax": ["equinox", "flowjax.flows", "flowjax.train"],
    "numpyro": ["numpyro.infer"],
    "scikit-learn": ["sklearn.ensemble"],
}
"""The modules of each library, which are imported before the clock starts."""


def count_lines(function: Callable) -> int:
    """Return the number of lines of a function below its docstring, without blank lines."""
    lines = inspect.getsource(function).split('"""')[-1].splitlines()
    return sum(1 for line in lines if line.strip())


def measure(name: str, library: str, config: Config) -> dict[str, Any]:
    """Run one task in one library for every seed."""
    task, scores, seconds = TASKS[name], [], []
    for seed in range(config.seeds):
        inputs = task.inputs(config, seed)
        for module in IMPORTS[library]:
            import_module(module)
        start = time.perf_counter()
        scores.append(task.libraries[library](*inputs, seed))
        seconds.append(time.perf_counter() - start)
    found = {"scores": scores, "seconds": seconds, "version": version(library)}
    return found | {"lines": count_lines(task.libraries[library])}


def read_posteriors() -> dict[str, dict[str, Any]]:
    """Return the rows of `sbi_peers.py` for two moons: the posterior of a simulator."""
    results = json.loads((HERE / "sbi" / "peers.json").read_text())["results"]
    rows = {name: results[f"two_moons, {name}"] for name in ("sbi", "afflow")}
    return {
        name: {
            "scores": row["scores"],
            "seconds": [row["fit_seconds"] + row["sample_seconds"][0]],
            "lines": count_lines(sbi_peers.FITS[name]),
        }
        for name, row in rows.items()
    }


def write_line(title: str, score: str, library: str, row: dict, ours: dict) -> str:
    """Return a line of the table: a library, then afflow."""
    cells = [f"{title}; {score}", library]
    for found in (row, ours):
        mean, size = np.mean(found["scores"]), len(found["scores"])
        error = f" ± {np.std(found['scores'], ddof=1) / np.sqrt(size):.3f}" if size > 1 else ""
        seconds = found["seconds"][0]
        shown = f"{seconds:.0f}" if seconds >= 1 else f"{seconds:.1g}"
        cells += [f"{found['lines']}", shown, f"{mean:.3f}{error}"]
    return f"| {' | '.join(cells)} |"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    head = "task; score", "library", "lines", "seconds", "score", "our lines", "seconds", "score"
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups = {name: (TASKS[name].title, TASKS[name].score) for name in TASKS}
    groups["posterior"] = "posterior of two moons, 10,000 simulations", "C2ST, 0.5 is exact"
    for name, title in groups.items():
        rows = {key.split(", ")[1]: row for key, row in results.items() if key.startswith(name)}
        ours = rows.pop("afflow", None)
        lines += [write_line(*title, key, row, ours) for key, row in rows.items() if ours]
    return "\n".join(lines) + "\n"


def main(config: Config) -> None:
    """Run the missing rows, each in a new process, and write each at once."""
    results = json.loads(config.out.read_text())["results"] if config.out.exists() else {}
    new = multiprocessing.get_context("spawn")
    for name in config.tasks:
        for library in TASKS[name].libraries:
            if f"{name}, {library}" in results:
                continue
            with new.Pool(1) as pool:
                found = pool.apply(measure, (name, library, config))
            results[f"{name}, {library}"] = found
            print(name, library, found, flush=True)
            save(config.out, config, results)
    results |= {f"posterior, {name}": row for name, row in read_posteriors().items()}
    save(config.out, config, results)
    if config.out == HERE / "libraries.json":
        PAGE.write_text(with_table(PAGE.read_text(), table(results), BEGIN, END))
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Config))
