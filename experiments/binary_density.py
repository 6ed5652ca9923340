"""Autoregressive density models on binary data, beside the published test log-likelihoods.

    python experiments/binary_density.py
    python experiments/binary_density.py --dataset dna --models nade made --data-dir FOLDER

The first command needs no download. Its data are scikit-learn's handwritten digits, reduced to two
colours. Validation chooses the epoch. The test set is scored once, at the end. The results go to
`results/binary/`, one file per model, with samples and completions for images.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from binary_table import text_table
from datasets import Split, binary
from flax import nnx
from gaussians import summarize
from measuring.report import keep_programs, save
from recipes.binary_images import draw_images

import afflow

ROOT = Path(__file__).parent
SIDES = {"digits": 8, "binarized_mnist": 28}


@dataclass(frozen=True)
class Settings:
    """A model and its training.

    Attributes:
        hidden: the widths of the hidden layers.
        members: the number of masks or orders in an ensemble.
        endless: train on new masks at every step, not on the masks of the members.
        natural: draw random connections only, and give all members the natural order.
        dropout: the probability of dropping a hidden unit in an ensemble of masks.
        relu: use rectified units in NADE instead of sigmoids.
        batch_size: the number of rows in a minibatch.
        learning_rate: the learning rate of AdamW, which decays to zero by a cosine.
        weight_decay: the weight decay of AdamW; a step multiplies it by the learning rate.
        l2: half of this times the squared weights is added to the loss. Unlike weight decay, it
            does not depend on the scale of the gradients, and suits few rows.
        direct: add linear connections from input to output in MADE; by default if it is narrow.
        epochs: the largest number of epochs.
        patience: the number of epochs without a better validation loss before training stops.
    """

    hidden: tuple[int, ...] = (500,)
    members: int = 8
    endless: bool = False
    natural: bool = False
    dropout: float = 0.0
    relu: bool = False
    batch_size: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    l2: float = 0.0
    direct: bool | None = None
    epochs: int = 100
    patience: int = 15


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
    relu: bool | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    l2: float | None = None
    direct: bool | None = None
    epochs: int | None = None
    patience: int | None = None
    out: Path = ROOT / "results" / "binary"


DEFAULTS = {
    "independent": Settings(hidden=(20,), weight_decay=1e-3),
    "made": Settings(hidden=(500,)),
    "made_ensemble": Settings(hidden=(500, 500), epochs=200),
    "eonade": Settings(hidden=(500,), epochs=300, patience=30),
}


def settings_of(name: str, config: Config) -> Settings:
    """Return the defaults of a model, replaced by the values that the user gave."""
    defaults = DEFAULTS.get(name, Settings())
    given = {field: getattr(config, field) for field in asdict(defaults)}
    return replace(defaults, **{field: v for field, v in given.items() if v is not None})


def build(name: str, dim: int, settings: Settings, seed: int):
    """Return an untrained model."""
    rngs, hidden = nnx.Rngs(seed), settings.hidden
    match name:
        case "fvsbn":
            return afflow.fvsbn(dim, rngs=rngs)
        case "independent":
            return afflow.zoo.independent_mlps(dim, hidden=hidden[0], rngs=rngs)
        case "nade":
            activation = jax.nn.relu if settings.relu else jax.nn.sigmoid
            return afflow.nade(dim, hidden=hidden[0], activation=activation, rngs=rngs)
        case "made":
            return afflow.made_model(dim, hidden=hidden, direct=settings.direct, rngs=rngs)
        case "made_ensemble":
            names = "natural", "endless", "dropout"
            options = {name: getattr(settings, name) for name in names}
            masks = settings.members
            return afflow.zoo.made_ensemble(
                dim, hidden=hidden, num_masks=masks, **options, rngs=rngs
            )
        case _:
            return afflow.zoo.eonade(dim, hidden=hidden, num_orders=settings.members, rngs=rngs)


def start_at_means(model, train: np.ndarray):
    """Set the output biases to the logits of the mean of every coordinate; return the model."""
    mean = (train.sum(0) + 0.5) / (len(train) + 1)
    logits = jnp.log(mean / (1 - mean))
    part = model.conditioner if hasattr(model, "conditioner") else model.network
    bias = part.b if hasattr(part, "b") else part.biases[-1]
    bias[...] = logits.reshape(bias[...].shape).astype(bias[...].dtype)
    return model


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
    """Fit a model; return the model and its history."""
    model = build(name, data.train.shape[1], settings, config.seed)
    return afflow.fit(
        start_at_means(model, data.train),
        data.train,
        key=jax.random.key(config.seed),
        validation=data.validation,
        batch_size=settings.batch_size,
        ema=None,
        max_epochs=settings.epochs,
        patience=settings.patience,
        optimizer=optimizer(settings),
    )


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


def main(config: Config) -> None:
    """Train and score each model; print the table of the data set."""
    keep_programs()
    data = binary(config.dataset, config.data_dir)
    for name in config.models:
        settings = settings_of(name, config)
        print(config.dataset, name, settings, flush=True)
        begun = time.perf_counter()
        model, history = train(name, data, settings, config)
        seconds = time.perf_counter() - begun
        results = {
            "model": name,
            "settings": asdict(settings),
            "sizes": [len(part) for part in data],
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
            **evaluate(model, data),
            "validation": -history.validation[history.best_epoch],
            "best_epoch": history.best_epoch + 1,
            "seconds": seconds,
            "history": history._asdict(),
        }
        save(config.out / f"{config.dataset}-{name}.json", config, results)
        if config.dataset in SIDES:
            path = config.out / f"{config.dataset}-{name}.png"
            draw_images(model, data, SIDES[config.dataset], path)
    print(text_table(config.dataset, config.out))


if __name__ == "__main__":
    main(tyro.cli(Config))
