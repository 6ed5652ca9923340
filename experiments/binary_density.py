"""Autoregressive density models on binary data, beside the published test log-likelihoods.

    python experiments/binary_density.py
    python experiments/binary_density.py --dataset dna --models nade made --data-dir FOLDER

The first command needs no download. Its data are scikit-learn's handwritten digits, reduced to two
colours. Validation chooses the epoch. The test set is scored once, at the end. The results go to
`results/binary/`, one file per model, with samples and completions for images.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
import tyro
from binary_table import text_table
from datasets import Split, binary
from flax import nnx
from gaussians import summarize
from measuring.report import keep_programs, save
from measuring.stopwatch import Stopwatch, make_checkpoint
from recipes.binary_images import draw_images
from recipes.binary_models import DEFAULTS, Settings, build, start_at_means

import afflow

ROOT = Path(__file__).parent
SIDES = {"digits": 8, "binarized_mnist": 28}


@dataclass(frozen=True)
class Config:
    """The models to fit to one set. A setting that is not given has the default of the model."""

    dataset: Literal[
        "digits", "adult", "connect4", "dna", "mushrooms", "nips", "binarized_mnist"
    ] = "digits"
    models: tuple[
        Literal["fvsbn", "independent", "nade", "made", "made_ensemble", "eonade"], ...
    ] = ("fvsbn", "independent", "nade", "made", "made_ensemble", "eonade")
    data_dir: Path | None = None
    seed: int = 0
    hidden: tuple[int, ...] | None = None
    members: int | None = None
    endless: bool | None = None
    natural: bool | None = None
    dropout: float | None = None
    activation: Literal["sigmoid", "tanh", "relu"] | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    l2: float | None = None
    direct: bool | None = None
    ema: float | None = None
    epochs: int | None = None
    patience: int | None = None
    out: Path = ROOT / "results" / "binary"
    runs: Path | None = None
    """A folder for checkpoints. With it, the same command resumes a run that was killed."""


def settings_of(name: str, config: Config) -> Settings:
    """Return the defaults of a model, replaced by the values that the user gave."""
    defaults = DEFAULTS.get(name, Settings())
    given = {field: getattr(config, field) for field in asdict(defaults)}
    return replace(defaults, **{field: v for field, v in given.items() if v is not None})


def optimizer(settings: Settings) -> Callable[[int], optax.GradientTransformation]:
    """Return a function from the number of steps to AdamW with a cosine decay."""

    def make(num_steps):
        schedule = optax.cosine_decay_schedule(settings.learning_rate, num_steps)
        penalty = optax.add_decayed_weights(settings.l2, _find_matrices)
        adam = optax.adamw(schedule, weight_decay=settings.weight_decay)
        return optax.chain(optax.clip_by_global_norm(5.0), penalty, adam)

    return make


def _find_matrices(params):
    """Return which parameters are matrices of weights: all but the biases."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def train(name: str, data: Split, settings: Settings, config: Config):
    """Fit a model; return the model, its history and the core seconds of training."""
    folder = config.runs and config.runs / f"{config.dataset}-{name}"
    watch = Stopwatch(folder, asdict(settings) | {"seed": config.seed})
    model = build(name, data.train.shape[1], settings, config.seed)
    model, history = afflow.fit(
        start_at_means(model, data.train),
        data.train,
        key=jax.random.key(config.seed),
        validation=data.validation,
        batch_size=settings.batch_size,
        ema=settings.ema,
        max_epochs=settings.epochs,
        patience=settings.patience,
        optimizer=optimizer(settings),
        checkpoint=make_checkpoint(folder, settings.epochs),
        callbacks=[watch.keep],
    )
    return model, history, watch.read()


def log_probs(model, x: np.ndarray, batch_size: int = 500) -> np.ndarray:
    """Return the log-probability of every row, computed in batches."""
    cuts = range(0, len(x), batch_size)
    return np.concatenate([model.log_prob(x[cut : cut + batch_size]) for cut in cuts], dtype=float)


def evaluate(model, data: Split) -> dict:
    """Score the test set. For an ensemble, also score its first order alone."""
    scores = log_probs(model, data.test)
    results = {"test": summarize(scores)}
    if isinstance(model, afflow.OrderAgnosticModel):
        one = log_probs(model.with_orders(1), data.test)
        results["one_order"] = summarize(one)
        results["gain_of_the_ensemble"] = summarize(scores - one)
    return results


def run(name: str, settings: Settings, data: Split, config: Config) -> dict[str, Any]:
    """Train and score a model, write the results and return them."""
    print(config.dataset, name, settings, flush=True)
    model, history, seconds = train(name, data, settings, config)
    results = {
        "model": name,
        "settings": asdict(settings),
        "sizes": [len(part) for part in data],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
        **evaluate(model, data),
        "validation": -history.validation[history.best_epoch],
        "best_epoch": history.best_epoch + 1,
        "core_seconds": seconds,
        "history": history._asdict(),
    }
    save(config.out / f"{config.dataset}-{name}.json", config, results)
    if config.dataset in SIDES:
        path = config.out / f"{config.dataset}-{name}.png"
        draw_images(model, data, SIDES[config.dataset], path)
    return results


def main(config: Config) -> None:
    """Train and score each model; print the table of the data set."""
    keep_programs()
    data = binary(config.dataset, config.data_dir)
    for name in config.models:
        run(name, settings_of(name, config), data, config)
    print(text_table(config.dataset, config.out))


if __name__ == "__main__":
    main(tyro.cli(Config))
