"""Fit a flow to one of the standard benchmarks and report its test log-likelihood.

    python experiments/density_estimation.py --dataset digits
    python experiments/density_estimation.py --dataset power --model nsf --data-dir FOLDER

Validation chooses the epoch. The test set is scored once, at the end. The results and a learning
curve go to `results/`, the parameters to `runs/`.
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from datasets import DENSITIES, Split
from datasets.mnist import bits_per_dim
from flax import nnx
from gaussians import summarize
from measuring.report import keep_programs, save
from measuring.stopwatch import claim
from recipes.benchmarks import FAST, PAPER, Settings, build
from recipes.cycles import Fitted, read_checkpoint, train_cycle, write_checkpoint

import afflow

ROOT = Path(__file__).parent
Dataset = Literal[
    "power", "gas", "hepmass", "miniboone", "miniboone_small", "bsds300", "mnist", "digits"
]
PRESETS = {"fast": FAST, "paper": PAPER}


@dataclass(frozen=True)
class Config:
    """The model and the data set. Settings that are not given come from the preset."""

    dataset: Dataset = "power"
    model: Literal["maf", "nsf", "mixture", "tnaf"] = "maf"
    preset: Literal["fast", "paper"] = "fast"
    data_dir: Path | None = None
    seed: int = 0
    num_layers: int | None = None
    hidden: tuple[int, ...] | None = None
    activation: Literal["relu", "tanh"] | None = None
    dropout: float | None = None
    base: Literal["normal", "student_t"] | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    ema: float | None = None
    cycles: tuple[int, ...] | None = None
    num_bins: int | None = None
    minutes: float | None = None
    """Minutes of training on one core. A cycle that would end later does not start."""
    resume: bool = False
    """Continue from the last checkpoint, if there is one."""
    out: Path = ROOT / "results" / "density"
    runs: Path = ROOT.parent / "runs"

    @property
    def name(self) -> str:
        """The name of this run's files, without a suffix."""
        return f"{self.dataset}_{self.model}"


def settings_of(config: Config) -> Settings:
    """Return the settings of the preset, replaced by the values that the user gave."""
    chosen = PRESETS[config.preset].get((config.dataset, config.model), Settings())
    given = {name: getattr(config, name, None) for name in asdict(chosen)}
    return replace(chosen, **{name: value for name, value in given.items() if value is not None})


def train(config: Config, settings: Settings, data: Split) -> Fitted:
    """Fit the flow in cycles. Each cycle starts from the best flow of the previous cycle."""
    fitted = Fitted(build(config.model, settings, data.train, config.seed), [], [])
    home = config.runs / config.name
    path, folder = home / "flow.npz", home / "cycle"
    if not config.resume:
        shutil.rmtree(home, ignore_errors=True)
    claim(home, asdict(settings) | {"seed": config.seed})
    if path.exists():
        fitted = read_checkpoint(fitted.flow, path)
    for epochs in settings.cycles[fitted.cycles :]:
        pace = fitted.core_seconds / max(len(fitted.train), 1)
        if config.minutes and fitted.core_seconds + epochs * pace > 60 * config.minutes:
            break
        fitted = train_cycle(fitted, epochs, config.seed, settings, data, folder)
        write_checkpoint(fitted, path)
        shutil.rmtree(folder, ignore_errors=True)
    return fitted


def log_probs(flow: afflow.Flow, x: np.ndarray, batch_size: int = 4096) -> np.ndarray:
    """Return the log-density of every row, computed in batches."""
    cuts = range(0, len(x), batch_size)
    return np.concatenate([flow.log_prob(x[cut : cut + batch_size]) for cut in cuts], dtype=float)


def draw(fitted: Fitted, title: str, path: Path) -> None:
    """Draw the learning curves, without the steep rise at their start."""
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    epochs = np.arange(1, len(fitted.train) + 1)
    axis.plot(epochs, np.negative(fitted.train), label="train")
    axis.plot(epochs, np.negative(fitted.validation), label="validation")
    axis.set_ylim(np.quantile(np.negative(fitted.validation), 0.05))
    axis.set(title=title, xlabel="epoch", ylabel="log-likelihood (nats)")
    axis.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def report(config: Config, fitted: Fitted, data: Split) -> dict[str, Any]:
    """Score the test set and return the contents of the results file."""
    best = int(np.argmin(fitted.validation))
    scores = log_probs(fitted.flow, data.test)
    images = config.dataset == "mnist"
    return {
        "dataset": config.dataset,
        "model": config.model,
        "preset": config.preset,
        "seed": config.seed,
        "sizes": [len(part) for part in data],
        "dim": data.test.shape[1],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(fitted.flow, nnx.Param))),
        "test": summarize(scores),
        "bits_per_dim": bits_per_dim(scores, data.test) if images else None,
        "validation": -fitted.validation[best],
        "best_epoch": best + 1,
        "epochs": len(fitted.train),
        "cycles": fitted.cycles,
        "core_seconds": fitted.core_seconds,
        "losses": {"train": fitted.train, "validation": fitted.validation},
    }


def run(config: Config, settings: Settings) -> dict[str, Any]:
    """Train, score the test set once, write the results and return them."""
    data = DENSITIES[config.dataset](config.data_dir)
    print(config.name, [part.shape for part in data], settings, flush=True)
    fitted = train(config, settings, data)
    results = report(config, fitted, data)
    save(config.out / f"{config.name}.json", settings, results)
    draw(fitted, config.name, config.out / f"{config.name}.png")
    return results


def main(config: Config) -> None:
    """Train and score a flow with the preset, changed by the settings that the user gave."""
    keep_programs()
    results = run(config, settings_of(config))
    print("{nats:.3f} +- {two_standard_errors:.3f} nats".format(**results["test"]))


if __name__ == "__main__":
    main(tyro.cli(Config))
