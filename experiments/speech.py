"""Fit a WaveNet to recordings of spoken digits, score the test recordings, and speak each digit.

    python experiments/speech.py --data-dir FOLDER

The network reads the digit as a context and predicts one symbol of the mu-law for each sample.
Validation chooses the epoch; the test recordings are scored once, each from its first sample to its
last.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import matplotlib

matplotlib.use("Agg")
import numpy as np
import optax
import tyro
from datasets.speech import CODEC, RATE, Speech, cut_evenly, pad, spoken_digits, thin
from flax import nnx
from measuring.bits import score_counts, summarize, summarize_groups
from measuring.report import keep_programs, save
from measuring.sounds import draw, write_sound
from measuring.stopwatch import Stopwatch

import afflow

ROOT = Path(__file__).parent
DIGITS = np.arange(10)
STEP, BATCH = 2000, 8  # scored recordings are padded to a multiple of STEP samples


@dataclass(frozen=True)
class Config:
    """The network, its training, and the samples."""

    channels: int = 64
    stacks: int = 2
    """Stacks of layers with dilations 1, 2, 4, ..."""
    layers: int = 9
    """Layers in a stack."""
    speaker: bool = False
    """Whether the context has the speaker too."""
    length: int = 2000
    """Samples in a training window."""
    batch_size: int = 4
    epochs: int = 12
    learning_rate: float = 2e-3
    minutes: float = 120.0
    """Training ends after the epoch in which this time of one CPU core is over."""
    seed: int = 0
    temperature: float = 0.9
    duration: int = 4000
    """Samples in a generated recording."""
    max_recordings: int | None = None
    """Use at most this many recordings of each part, for a quick trial."""
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "speech"
    runs: Path = ROOT.parent / "runs"

    @property
    def label(self) -> str:
        """The name of the files of this run."""
        return "digit_and_speaker" if self.speaker else "digit"


def make_context(digits: np.ndarray, speakers: np.ndarray, names: np.ndarray) -> np.ndarray:
    """Return zeros and ones `(N, 10 + len(names))`: one for the digit, one for the speaker."""
    columns = [digits[:, None] == DIGITS, speakers[:, None] == names]
    return np.hstack(columns).astype(np.float32)


def build(config: Config, context_dim: int) -> afflow.AutoregressiveModel:
    """Return the model of a window."""
    num_symbols = CODEC.num_values
    network = afflow.conditioners.WaveNet(
        config.length,
        num_symbols,
        tuple(2**layer for layer in range(config.layers)) * config.stacks,
        channels=config.channels,
        features=num_symbols,
        context_dim=context_dim,
        rngs=nnx.Rngs(config.seed),
    )
    return afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(num_symbols))


def make_optimizer(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, with a warm-up and a cosine decay to zero."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, min(200, num_steps // 4), num_steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def train(
    config: Config, data: Speech, names: np.ndarray
) -> tuple[afflow.AutoregressiveModel, dict[str, Any]]:
    """Fit the model; return it with the losses of all epochs in bits per sample, and its cost."""
    windows, contexts = {}, {}
    for part in ("train", "validation"):
        symbols, digits, speakers = getattr(data, part)
        windows[part], owners = cut_evenly(symbols, config.length)
        contexts[part] = make_context(digits, speakers, names)[owners]
    watch = Stopwatch(folder := config.runs / f"speech_{config.label}", asdict(config))
    model, history = afflow.fit(
        build(config, contexts["train"].shape[1]),
        windows["train"],
        context=contexts["train"],
        key=jax.random.key(config.seed),
        missing=True,
        validation=(windows["validation"], contexts["validation"]),
        batch_size=config.batch_size,
        ema=None,
        max_epochs=config.epochs,
        optimizer=partial(make_optimizer, config.learning_rate),
        checkpoint=afflow.Checkpoint(folder / "steps", steps=100),
        callbacks=[watch.stop_after(config.minutes)],
        label="speech",
    )
    size = {part: np.isfinite(rows).sum(1).mean() for part, rows in windows.items()}
    bits = {part: np.array(getattr(history, part)) / size[part] / np.log(2) for part in size}
    losses = {part: values.tolist() for part, values in bits.items()}
    return model, losses | {"best_epoch": history.best_epoch, "core_seconds": watch.read()}


def score(
    model: afflow.AutoregressiveModel, symbols: list[np.ndarray], contexts: np.ndarray
) -> np.ndarray:
    """Return the bits `(N,)` of whole recordings, scored in minibatches of few lengths."""
    bits = np.empty(len(symbols))
    lengths = np.array([-(-len(row) // STEP) * STEP for row in symbols])
    for length in np.unique(lengths):
        longer, members = model.with_length(int(length)), np.flatnonzero(lengths == length)
        for start in range(0, len(members), BATCH):
            chosen = np.resize(members[start : start + BATCH], BATCH)  # repeated, to fill a batch
            rows = pad([symbols[i] for i in chosen], length), contexts[chosen]
            bits[chosen] = -longer.observed_log_prob(jax.random.key(0), *rows) / np.log(2)
    return bits


def speak(
    model: afflow.AutoregressiveModel, config: Config, contexts: np.ndarray
) -> list[np.ndarray]:
    """Return a generated sound for each context."""
    symbols, _ = model.generate(
        jax.random.key(config.seed),
        length=config.duration,
        context=contexts,
        temperature=config.temperature,
    )
    return list(CODEC.decode(np.asarray(symbols)))


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    parts = spoken_digits(config.data_dir)
    data = Speech(*(thin(part, config.max_recordings) for part in parts))
    names = np.unique(parts.train.speakers)[: None if config.speaker else 0]
    model, losses = train(config, data, names)
    symbols, digits, speakers = data.test
    bits = score(model, symbols, make_context(digits, speakers, names))
    weights = jax.tree.leaves(nnx.state(model, nnx.Param))
    results = {
        "test": summarize(bits, symbols),
        "test_by_digit": summarize_groups(bits, symbols, digits),
        "test_by_counts": score_counts(data.train.symbols, symbols, CODEC.num_values),
        "parameters": sum(weight.size for weight in weights),
        **losses,
    }
    save(config.out / f"{config.label}.json", config, results)

    firsts = [int(np.flatnonzero(parts.test.digits == digit)[0]) for digit in DIGITS]
    contexts = make_context(DIGITS, parts.test.speakers[firsts], names)
    spoken = speak(model, config, contexts)
    real = [CODEC.decode(parts.test.symbols[i][: config.duration]) for i in firsts]
    for digit, sound in enumerate(spoken):
        write_sound(config.out / f"{config.label}_{digit}.wav", sound, RATE)
    draw(config.out / f"{config.label}.png", {"real": real, "generated": spoken}, RATE)
    test = results["test"]
    print(f"test: {test['bits_per_sample']:.4f} +- {test['standard_error']:.4f} bits per sample")


if __name__ == "__main__":
    main(tyro.cli(Config))
