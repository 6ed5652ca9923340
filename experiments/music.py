"""Fit a model of polyphonic music, score the test pieces, and draw and write a continued piece.

    python experiments/music.py --model rnn_nade --data jsb --data-dir FOLDER

An RNN-NADE is a recurrent network over the frames that sets the context of a NADE over the 88 keys
of a frame. It scores all frames (Boulanger-Lewandowski et al. 2012). A temporal convolutional
network has independent keys in a frame. It scores the frames after the first (Bai et al. 2018).
Training pieces are transposed at random. Validation chooses the epoch; the test pieces are scored
once.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from datasets.music import KEYS, padded, piano_rolls
from flax import nnx
from measuring.bits import estimate_ratio
from measuring.report import keep_programs, save
from measuring.stopwatch import Stopwatch

import afflow

ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Config:
    """The model and its training."""

    model: Literal["rnn_nade", "tcn"] = "rnn_nade"
    data: Literal["jsb", "nottingham", "piano", "muse"] = "jsb"
    hidden: int = 256
    """Units of the recurrent network."""
    width: int = 128
    """Length of the context of the NADE."""
    nade_hidden: int = 128
    """Hidden units of the NADE."""
    channels: tuple[int, ...] = (150, 150)
    """Channels of the blocks of a temporal convolutional network."""
    kernel_size: int = 3
    """Frames that its convolutions read."""
    dropout: float = 0.3
    transpose: int = 6
    """Largest transposition of a training piece, in semitones, up or down."""
    length: int = 160
    """Frames of a training window; shorter pieces are padded."""
    batch_size: int = 16
    epochs: int = 200
    patience: int = 60
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    minutes: float = 60.0
    """Training ends after the epoch in which this time of one CPU core is over."""
    rate: float = 2.0
    """Frames in a second of the written piece."""
    seed: int = 0
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "music"
    runs: Path = ROOT.parent / "runs"


def build(config: Config, frames: np.ndarray) -> afflow.AutoregressiveModel:
    """Return the model of a window.

    It starts from the share of `frames` `(N, 88)` in which each key sounds, because most keys are
    nearly always off.
    """
    rngs = nnx.Rngs(config.seed)
    share = (frames.sum(0) + 1) / (len(frames) + 2)
    odds = jax.numpy.asarray(np.log(share / (1 - share)), float)
    if config.model == "tcn":
        network = afflow.conditioners.TCN(
            config.length,
            KEYS,
            config.channels,
            kernel_size=config.kernel_size,
            features=KEYS,
            dropout=config.dropout,
            rngs=rngs,
        )
        network.b.set_value(odds)
        keys = afflow.conditionals.Independent(afflow.conditionals.Bernoulli(), KEYS)
        return afflow.AutoregressiveModel(network, keys)
    sizes = {"hidden": config.nade_hidden, "context_dim": config.width}
    keys = afflow.nade(KEYS, **sizes, activation=jax.nn.tanh, rngs=rngs)
    keys.conditioner.b.set_value(odds[:, None])
    network = afflow.conditioners.Recurrent(
        config.length,
        config.width,
        (config.hidden,),
        features=KEYS,
        dropout=config.dropout,
        rngs=rngs,
    )
    return afflow.AutoregressiveModel(network, afflow.models.TokenModel(keys))


@dataclass(frozen=True)
class Windows:
    """Minibatches of transposed pieces, cut at random where they are longer than a window."""

    pieces: list[np.ndarray]
    config: Config

    def __call__(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the minibatches of an epoch."""
        rng = np.random.default_rng([self.config.seed, epoch])
        order = rng.permutation(len(self.pieces))
        size = self.config.batch_size
        for i in range(0, len(order) - size + 1, size):
            chosen = [self.change(self.pieces[j], rng) for j in order[i : i + size]]
            yield padded(chosen, self.config.length)

    def change(self, piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a window of a piece, transposed as far as its keys allow."""
        start = rng.integers(max(len(piece) - self.config.length, 0) + 1)
        used = np.flatnonzero(piece.any(0))
        low = -min(self.config.transpose, used[0])
        high = min(self.config.transpose, KEYS - 1 - used[-1])
        return np.roll(piece[start : start + self.config.length], rng.integers(low, high + 1), 1)


def score(model: afflow.AutoregressiveModel, pieces: list[np.ndarray], skipped: int) -> dict:
    """Return the mean log-probability of a frame given the frames before, and its standard error.

    The first `skipped` frames of a piece do not count.
    """
    rows = padded(pieces)
    model, silent = model.with_length(rows.shape[1]), np.nan_to_num(rows)
    terms = [model.log_conditionals(silent[i : i + 16]) for i in range(0, len(rows), 16)]
    counted = ~np.isnan(rows[:, :, 0])
    counted[:, :skipped] = False
    nats, frames = (np.concatenate(terms) * counted).sum(1), counted.sum(1)
    mean, error = estimate_ratio(nats, frames)
    return {"nats_per_frame": mean, "standard_error": error}


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    pieces = piano_rolls(config.data, config.data_dir)
    name = f"{config.data}_{config.model}"
    watch = Stopwatch(folder := config.runs / f"music_{name}", asdict(config))
    model, history = afflow.fit(
        build(config, np.concatenate(pieces.train)),
        afflow.training.Stream(
            Windows(pieces.train, config), len(pieces.train) // config.batch_size
        ),
        key=jax.random.key(config.seed),
        missing=True,
        validation=padded(pieces.validation, config.length),
        ema=None,
        max_epochs=config.epochs,
        patience=config.patience,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        checkpoint=afflow.Checkpoint(folder / "steps", every=10),
        callbacks=[watch.stop_after(config.minutes)],
        label=config.data,
    )
    skipped = 1 if config.model == "tcn" else 0
    results = {
        "test": score(model, pieces.test, skipped),
        "validation": score(model, pieces.validation, skipped),
        "skipped_frames": skipped,
        "epochs": len(history.train),
        "best_epoch": history.best_epoch,
        "core_seconds": watch.read(),
    }
    save(config.out / f"{name}.json", config, results)
    drawn, _ = model.generate(jax.random.key(config.seed), pieces.test[0][:16], 96)
    notes = afflow.codecs.PianoRoll(config.rate).decode(np.asarray(drawn))
    afflow.codecs.write_midi(config.out / f"{name}.mid", notes)
    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    for axis, roll, title in zip(
        axes,
        (pieces.test[0][:96], drawn),
        ("a test piece", "its first 16 frames, continued"),
        strict=True,
    ):
        axis.imshow(np.asarray(roll).T[10:80], origin="lower", aspect="auto", cmap="Greys")
        axis.set(title=title, ylabel="key, from the 11th")
    axes[1].axvline(15.5, color="tab:orange")
    axes[1].set(xlabel="frame")
    figure.savefig(config.out / f"{name}.png", dpi=120)
    mean, error = results["test"].values()
    print(f"test: {mean:.3f} +- {error:.3f} nats per frame")


if __name__ == "__main__":
    main(tyro.cli(Config))
