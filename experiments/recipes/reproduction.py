"""A second training of a model whose results file is committed, with the settings in that file."""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import binary_density
import density_estimation
import real_density
from datasets import binary

from recipes import benchmarks, binary_models

NO_EFFECT = {
    "activation": "relu",
    "base": "normal",
    "direct": None,
    "dropout": 0.0,
    "ema": None,
    "l2": 0.0,
    "num_bins": 8,
}
"""The values of fields that older results files lack: those runs trained with these values."""
PATHS = "data_dir", "out", "runs"
Made = TypeVar("Made")


class Comparison(NamedTuple):
    """The committed figure of a model and the figure of its second training, in nats.

    `error` is two standard errors of the new figure, over the test rows. The error is unpaired,
    because the results files do not hold the committed scores of the rows. `sizes` has the numbers
    of parameters of the two models, if the results file has them.
    """

    name: str
    committed: float
    new: float
    error: float
    sizes: tuple[int | None, int | None] = (None, None)

    @property
    def agrees(self) -> bool:
        """Whether the committed figure lies within two standard errors of the new one."""
        return abs(self.committed - self.new) <= self.error

    def __str__(self) -> str:
        first, second = self.sizes
        note = "" if first == second else f" The models have {first} and {second} parameters."
        return (
            f"{self.name}: committed {self.committed:.3f} nats, new {self.new:.3f} nats, "
            f"difference {self.new - self.committed:+.3f}, standard error {self.error / 2:.3f} "
            f"(of the new figure, unpaired). The committed figure lies within two standard errors "
            f"of the new one: {'yes' if self.agrees else 'no'}.{note}"
        )


@dataclass(frozen=True)
class Folders:
    """The data folder, the folder for the new results, and the folder for checkpoints."""

    data_dir: Path | None
    out: Path
    runs: Path


def reproduce(
    dataset: str, model: str, results: Path, out: Path, data_dir: Path | None = None
) -> Comparison:
    """Train a model with the settings of its results file, and compare the test scores.

    A run that was killed resumes from its checkpoints. Ctrl-C ends it like a kill.

    Args:
        dataset: the data set.
        model: the model.
        results: the folder of the committed results.
        out: the folder for the new results and the checkpoints, outside `results`.
        data_dir: the data folder.

    Raises:
        ValueError: if `out` is in `results`, there is no results file of the model, or the stored
            settings do not fit the settings of today.
    """
    if results.resolve() in (out.resolve(), *out.resolve().parents):
        raise ValueError(f"Expected a folder outside {results}, got {out}.")
    path = find_file(dataset, model, results)
    kind, content = path.parent.name, json.loads(path.read_text())
    folders = Folders(data_dir, out / kind, out / "checkpoints" / kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Interrupted")  # or a half-trained model would be scored
        new = TRAIN[kind](content, model, folders)
    old = get_model(content, model)
    sizes = old.get("parameters"), new.get("parameters")
    scores = old["test"]["nats"], new["test"]["nats"], new["test"]["two_standard_errors"]
    return Comparison(f"{dataset} {model}", *map(float, scores), sizes)


def find_file(dataset: str, model: str, results: Path) -> Path:
    """Return the results file of a model.

    Raises:
        ValueError: if there is none.
    """
    found = {}
    for kind in TRAIN:
        for path in sorted((results / kind).glob("*.json")):
            found |= {cell: path for cell in find_cells(json.loads(path.read_text()))}
    if (dataset, model) not in found:
        models = sorted(other for name, other in found if name == dataset)
        choices = models or sorted({name for name, _ in found})
        raise ValueError(
            f"Expected a results file of {dataset} and {model} in {results}, got none: there are "
            f"files of {', '.join(choices)}."
        )
    return found[dataset, model]


def find_cells(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each data set and model of a results file."""
    config, results = content["config"], content["results"]
    dataset = results.get("dataset") or config["dataset"]
    models = [results["model"]] if "model" in results else config["models"]
    yield from ((dataset, model) for model in models)


def get_model(content: dict[str, Any], model: str) -> dict[str, Any]:
    """Return the results of one model in a results file."""
    results = content["results"]
    return results if "model" in results else results[model]


def train_density(content: dict[str, Any], model: str, folders: Folders) -> dict[str, Any]:
    """Train a flow of `density_estimation.py`; return the results."""
    results = content["results"]
    settings = rebuild(benchmarks.Settings, content["config"])
    settings = replace(settings, cycles=find_cycles(settings.cycles, results))
    names = {name: results[name] for name in ("dataset", "preset", "seed")}
    config = density_estimation.Config(model=model, resume=True, **names, **vars(folders))
    return density_estimation.run(config, settings)


def find_cycles(cycles: tuple[int, ...], results: dict[str, Any]) -> tuple[int, ...]:
    """Return the cycles that ran, which are fewer than the settings have if time ran out."""
    number = results.get("cycles")
    if number is None:  # an older file: the fewest cycles with as many epochs
        number = 1 + sum(epochs < results["epochs"] for epochs in accumulate(cycles))
    return cycles[:number]


def train_binary(content: dict[str, Any], model: str, folders: Folders) -> dict[str, Any]:
    """Train a model of `binary_density.py`; return the results."""
    dataset, seed = (content["config"][name] for name in ("dataset", "seed"))
    settings = rebuild(binary_models.Settings, content["results"]["settings"])
    config = binary_density.Config(dataset, (model,), seed=seed, **vars(folders))
    return binary_density.run(model, settings, binary(dataset, folders.data_dir), config)


def train_real(content: dict[str, Any], model: str, folders: Folders) -> dict[str, Any]:
    """Train a model of `real_density.py` on all folds; return the results of the model."""
    stored = {name: value for name, value in content["config"].items() if name not in PATHS}
    given = {"models": (model,), **vars(folders)}
    return real_density.run(rebuild(real_density.Config, stored | given))[model]


TRAIN: dict[str, Callable[[dict[str, Any], str, Folders], dict[str, Any]]] = {
    "density": train_density,
    "binary": train_binary,
    "real": train_real,
}


def rebuild(kind: type[Made], stored: dict[str, Any]) -> Made:
    """Return a dataclass with the values of a results file.

    Raises:
        ValueError: if the file has fields that the dataclass lacks, or lacks fields that have an
            effect.
    """
    names = {field.name for field in fields(kind)}
    unknown, missing = {*stored} - names, names - {*stored} - {*NO_EFFECT}
    if unknown or missing:
        raise ValueError(
            f"Expected a results file with the fields of {kind.__name__}, got one with unknown "
            f"fields {sorted(unknown)} and without {sorted(missing)}: check out the version that "
            f"made the file."
        )
    values = {name: NO_EFFECT[name] for name in names - {*stored}} | stored
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})
