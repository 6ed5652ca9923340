"""Relative, rotary and absolute positions on the chorales of Bach, one token for each voice.

    python experiments/music_transformer.py --data-dir FOLDER

A chorale is a sequence of its four voices at every sixteenth note: soprano, alto, tenor, bass
(Huang et al. 2018, arXiv:1809.04281). Training windows begin at a random note and are transposed at
random. Validation chooses the epoch. The differences of the scores are paired by piece.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from datasets.music import NUM_PITCHES, REST, VOICES, Pieces, chorales
from flax import nnx
from measuring.bits import estimate_ratio
from measuring.report import keep_programs, save
from measuring.stopwatch import Stopwatch
from recipes.sequences import score_by_windows

import afflow

ROOT = Path(__file__).parent
POSITIONS = {
    "relative": afflow.nets.Relative(256),
    "rotary": afflow.nets.Rotary(),
    "absolute": afflow.nets.Absolute(),
}


@dataclass(frozen=True)
class Config:
    """The networks and their training."""

    length: int = 256
    """Tokens in a window, four for each sixteenth note."""
    width: int = 96
    num_layers: int = 3
    num_heads: int = 4
    dropout: float = 0.1
    transpose: int = 5
    """Largest transposition in semitones, up or down."""
    batch_size: int = 8
    steps: int = 200
    """Minibatches in an epoch."""
    epochs: int = 15
    learning_rate: float = 2e-3
    minutes: float = 40.0
    """Each training ends after the epoch in which this time of one CPU core is over."""
    seed: int = 0
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "music"
    runs: Path = ROOT.parent / "runs"


@dataclass(frozen=True)
class Windows:
    """Minibatches of windows of random pieces, transposed at random."""

    pieces: list[np.ndarray]
    config: Config

    def __call__(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the minibatches of an epoch."""
        rng = np.random.default_rng([self.config.seed, epoch])
        long = [piece for piece in self.pieces if len(piece) >= self.config.length]
        lengths = np.array([len(piece) for piece in long])
        while True:
            chosen = rng.choice(len(long), self.config.batch_size, p=lengths / lengths.sum())
            yield np.stack([self.cut(long[i], rng) for i in chosen])

    def cut(self, piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a window that begins with a soprano, transposed as far as the pitches allow."""
        last = (len(piece) - self.config.length) // VOICES
        start = VOICES * rng.integers(last + 1)
        window, most = piece[start : start + self.config.length], self.config.transpose
        sounding = window[window != REST].astype(int)
        low, high = max(-most, 1 - sounding.min()), min(most, NUM_PITCHES - sounding.max())
        return np.where(window == REST, REST, window + rng.integers(low, high + 1)).astype(np.uint8)


class Fitted(NamedTuple):
    """A trained model, the history of its losses, and its cost."""

    model: afflow.AutoregressiveModel
    history: afflow.training.History
    core_seconds: float


def make_optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """Return Adam with a warm-up and a cosine decay."""
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, num_steps // 20, num_steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.01))


def train(config: Config, name: str, pieces: Pieces) -> Fitted:
    """Fit the model with one kind of positions."""
    symbols = NUM_PITCHES + 1
    network = afflow.conditioners.Transformer(
        config.length,
        symbols,
        width=config.width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        features=symbols,
        positions=POSITIONS[name],
        dropout=config.dropout,
        rngs=nnx.Rngs(config.seed),
    )
    watch = Stopwatch(folder := config.runs / f"music_transformer_{name}", asdict(config))
    size = config.length
    held_out = [piece[: len(piece) // size * size].reshape(-1, size) for piece in pieces.validation]
    model, history = afflow.fit(
        afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(symbols)),
        afflow.training.Stream(Windows(pieces.train, config), config.steps),
        key=jax.random.key(config.seed),
        validation=np.concatenate(held_out),
        ema=None,
        max_epochs=config.epochs,
        optimizer=partial(make_optimizer, config),
        checkpoint=afflow.Checkpoint(folder / "steps", steps=50),
        callbacks=[watch.stop_after(config.minutes)],
        label=name,
    )
    return Fitted(model, history, watch.read())


def compare(scores: dict[str, list[np.ndarray]]) -> dict[str, dict[str, float]]:
    """Return the mean nats of a token for each model, and the difference to the first model."""
    sizes = np.array([len(terms) for terms in next(iter(scores.values()))])
    totals = {name: -np.array([terms.sum() for terms in each]) for name, each in scores.items()}
    found, first = {}, next(iter(totals.values()))

    for name, total in totals.items():
        mean, error = estimate_ratio(total, sizes)
        more, more_error = estimate_ratio(total - first, sizes)
        found[name] = {"nats_per_token": mean, "standard_error": error}
        found[name] |= {"more_than_first": more, "standard_error_of_difference": more_error}
    return found


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    pieces = chorales(config.data_dir)
    fitted = {name: train(config, name, pieces) for name in POSITIONS}
    models = {name: each.model for name, each in fitted.items()}
    scores = {
        name: [score_by_windows(model, piece) for piece in pieces.test]
        for name, model in models.items()
    }
    results = {
        "test": compare(scores),
        "validation": {name: each.history.validation for name, each in fitted.items()},
        "core_seconds": {name: each.core_seconds for name, each in fitted.items()},
    }
    save(config.out / "music_transformer.json", config, results)
    prompt = pieces.test[0][: config.length // 4]
    drawn, _ = models["relative"].generate(jax.random.key(config.seed), prompt, temperature=0.9)
    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    titles = ("a test chorale", "its first quarter, continued")
    for axis, tokens, title in zip(axes, (pieces.test[0], drawn), titles, strict=True):
        voices = np.asarray(tokens)[: config.length].reshape(-1, VOICES).astype(float)
        voices[voices == REST] = np.nan
        axis.plot(voices, drawstyle="steps-post", marker=".", markersize=3)
        axis.set(title=title, ylabel="pitch")
    axes[1].axvline(config.length / 4 / VOICES - 0.5, color="black", linestyle=":")
    axes[1].set(xlabel="sixteenth note")
    figure.savefig(config.out / "music_transformer.png", dpi=120)
    for name, score in results["test"].items():
        print(name, ", ".join(f"{key} {value:.4f}" for key, value in score.items()))


if __name__ == "__main__":
    main(tyro.cli(Config))
