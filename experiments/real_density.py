"""RNADE and flows of the MAF family on small real-valued sets, by ten folds.

    python experiments/real_density.py --dataset red_wine --data-dir FOLDER

The recipe is from Uria et al. 2013 (arXiv:1306.0186). Nine tenths of the rows are for training and
one tenth for testing, in turn. Each fold is standardised by its training rows. A tenth of the
training rows is held out for early stopping. The score of a row is its test log-likelihood under
the one model that was not trained on it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from datasets import fold, rnade
from flax import nnx
from gaussians import gaussian_log_prob, summarize
from measuring.report import keep_programs, save
from measuring.stopwatch import Stopwatch
from recipes.folds import read_folds, write_folds
from tqdm import tqdm

import afflow

FOLDS = 10
# test log-likelihoods in nats, from the paper
PUBLISHED = {
    "red_wine": {"gaussian": -13.18, "rnade_gaussians": -9.36},
    "parkinsons": {"gaussian": -10.85, "rnade_gaussians": -0.90},
    "boston": {"gaussian": -11.37, "rnade_gaussians": -0.64},
}
Make = Callable[[int, nnx.Rngs], afflow.AutoregressiveModel | afflow.Flow]


@dataclass(frozen=True)
class Config:
    """The data set, the models and their training."""

    dataset: Literal["red_wine", "parkinsons", "boston"] = "red_wine"
    models: tuple[Literal["rnade_gaussians", "rnade_laplaces", "maf", "maf_mixtures"], ...] = (
        "rnade_gaussians",
        "rnade_laplaces",
        "maf",
        "maf_mixtures",
    )
    data_dir: Path | None = None
    seed: int = 0
    hidden: int = 50
    num_components: int = 20
    batch_size: int = 100
    learning_rate: float = 1e-2
    weight_decay: float = 0.3
    ema: float | None = 0.99
    """The decay of the moving average of the parameters that is validated and tested."""
    epochs: int = 150
    patience: int = 40
    out: Path = Path(__file__).parent / "results" / "real"
    runs: Path | None = None
    """A folder for finished folds. With it, the same command resumes a run that was killed."""


def makers(config: Config) -> dict[str, Make]:
    """Return, for each model, a function that builds the model from a dimension."""
    mixture = {"hidden": config.hidden, "num_components": config.num_components}
    deep = {"num_layers": 3, "hidden": (config.hidden, config.hidden)}

    def mixtures() -> afflow.Bijector:
        return afflow.univariates.MixtureCDF(config.num_components)

    return {
        "rnade_gaussians": lambda dim, rngs: afflow.rnade(dim, **mixture, rngs=rngs),
        "rnade_laplaces": lambda dim, rngs: afflow.rnade(
            dim, component=afflow.univariates.LaplaceCDF(), **mixture, rngs=rngs
        ),
        "maf": lambda dim, rngs: afflow.maf(dim, **deep, rngs=rngs),
        "maf_mixtures": lambda dim, rngs: afflow.maf(
            dim, **deep | {"num_layers": 2}, univariate=mixtures, rngs=rngs
        ),
    }


def optimizer(config: Config) -> Callable[[int], optax.GradientTransformation]:
    """Return a function from the number of steps to AdamW with a cosine decay."""

    def make(num_steps):
        schedule = optax.cosine_decay_schedule(config.learning_rate, num_steps)
        adam = optax.adamw(schedule, weight_decay=config.weight_decay)
        return optax.chain(optax.clip_by_global_norm(5.0), adam)

    return make


def score(make: Make, x: np.ndarray, number: int, config: Config) -> np.ndarray:
    """Fit a model to the training rows of a fold; return the log-density of the test rows."""
    train, test = (part.astype(np.float32) for part in fold(x, number))
    model, _ = afflow.fit(
        make(x.shape[1], nnx.Rngs(config.seed)),
        train,
        key=jax.random.key(number),
        batch_size=config.batch_size,
        max_epochs=config.epochs,
        patience=config.patience,
        optimizer=optimizer(config),
        ema=config.ema,
        progress=False,
    )
    return np.asarray(model.log_prob(test), float)


def score_folds(name: str, x: np.ndarray, config: Config) -> tuple[list[np.ndarray], float]:
    """Return the log-densities of the test rows of every fold, and the core seconds."""
    folder = config.runs and config.runs / f"{config.dataset}-{name}"
    settings = {key: value for key, value in asdict(config).items() if key != "models"}
    watch, make, done = Stopwatch(folder, settings), makers(config)[name], read_folds(folder)
    bar = tqdm(range(len(done), FOLDS), unit="fold", initial=len(done), total=FOLDS, desc=name)
    for number in bar:
        done.append(score(make, x, number, config))
        bar.set_postfix(nats=f"{done[-1].mean():.2f}")
        write_folds(done, folder)
        watch.keep()
    return done, watch.read()


def draw(results: dict, dataset: str, path: Path) -> None:
    """Draw every model's fold scores, the mean, and the published scores."""
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for row, (name, result) in enumerate(results.items()):
        axis.plot(result["folds"], [row] * FOLDS, "o", alpha=0.4, color="tab:blue")
        axis.plot(result["test"]["nats"], row, "|", color="black", markersize=18)
        published = PUBLISHED[dataset].get(name, np.nan)
        axis.plot(published, row, "x", color="tab:red", label="published" if row == 0 else None)
    axis.set_yticks(range(len(results)), list(results))
    axis.set(xlabel="test log-likelihood (nats): folds and mean", title=dataset)
    axis.legend()
    figure.savefig(path, dpi=120)


def run(config: Config) -> dict[str, Any]:
    """Run all folds of all models, write the results and return them."""
    x = rnade(config.dataset, config.data_dir)
    gaussian = [gaussian_log_prob(*fold(x, number)) for number in range(FOLDS)]
    scores = {"gaussian": (gaussian, None)}
    scores |= {name: score_folds(name, x, config) for name in config.models}
    results = {
        name: {
            "test": summarize(np.concatenate(folds)),
            "folds": [rows.mean() for rows in folds],
            "published": PUBLISHED[config.dataset].get(name),
            "core_seconds": seconds,
        }
        for name, (folds, seconds) in scores.items()
    }
    save(config.out / f"{config.dataset}.json", config, results)
    draw(results, config.dataset, config.out / f"{config.dataset}.png")
    return results


def main(config: Config) -> None:
    """Run the experiment; print the table."""
    keep_programs()
    results = run(config)
    print(f"{config.dataset:<20}test log-likelihood, nats    published")
    for name, result in results.items():
        test = result["test"]
        line = f"{test['nats']:.2f} +- {test['two_standard_errors']:.2f}"
        print(f"  {name:<18}{line:>24}{result['published'] or '-':>13}")


if __name__ == "__main__":
    main(tyro.cli(Config))
