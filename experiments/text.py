"""Fit a model of the characters of a text, score the held-out tenth, and write a sample.

    python experiments/text.py --model lstm --data-dir FOLDER

Validation chooses the epoch, and the test text is scored once. A recurrent network and a WaveNet
read the text as one sequence: windows follow each other in training and the state is carried on
(truncated backpropagation). A transformer reads shuffled windows.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from datasets.text import BLOCK, Text, tiny_shakespeare
from flax import nnx
from measuring.report import keep_programs, save
from measuring.stopwatch import Stopwatch
from recipes.sequences import continue_by_windows, score_by_windows

import afflow

ROOT = Path(__file__).parent
CELLS = {"gru": nnx.GRUCell, "lstm": nnx.OptimizedLSTMCell}
DILATIONS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Config:
    """The network, its training, and the sample."""

    model: Literal["gru", "lstm", "wavenet", "transformer"] = "lstm"
    hidden: tuple[int, ...] = (512,)
    """Widths of the layers: recurrent layers, WaveNets of seven layers, or transformer layers."""
    dropout: float = 0.3
    """Not for a WaveNet."""
    length: int = 128
    """Characters in a window."""
    batch_size: int = 32
    epochs: int = 30
    learning_rate: float = 2e-3
    minutes: float = 120.0
    """Training ends after the epoch in which this time of one CPU core is over."""
    seed: int = 0
    prompt: str = "ROMEO:"
    temperature: float = 0.8
    data_dir: Path | None = None
    out: Path = ROOT / "results" / "text"
    runs: Path = ROOT.parent / "runs"


def build(config: Config, num_symbols: int) -> afflow.AutoregressiveModel:
    """Return the model of one window."""
    sizes, rngs, width = (config.length, num_symbols), nnx.Rngs(config.seed), config.hidden[0]
    options = {"features": num_symbols, "rngs": rngs}
    if config.model == "wavenet":
        dilations = DILATIONS * len(config.hidden)
        network = afflow.conditioners.WaveNet(*sizes, dilations, channels=width, **options)
    elif config.model == "transformer":
        shape = {"width": width, "num_layers": len(config.hidden), "num_heads": width // 32}
        network = afflow.conditioners.Transformer(
            *sizes, **shape, dropout=config.dropout, **options
        )
    else:
        network = afflow.conditioners.Recurrent(
            *sizes,
            config.hidden,
            cell=CELLS[config.model],
            residual=True,
            dropout=config.dropout,
            **options,
        )
    return afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(num_symbols))


def make_optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """Return AdamW with a warm-up, a cosine decay to a tenth, and decay of matrices only."""
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, 100, num_steps, config.learning_rate / 10
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(rate, b2=0.95, weight_decay=0.1, mask=_find_matrices),
    )


def _find_matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def train(config: Config, text: Text) -> tuple[afflow.AutoregressiveModel, dict[str, Any]]:
    """Fit the model; return it with the losses in nats per character, and its cost.

    A run that was stopped goes on from its checkpoint.
    """
    carries = config.model != "transformer"
    windows = afflow.training.cut_windows(
        text.symbols.train, config.length, config.batch_size, consecutive=carries
    )
    held_out, row = text.symbols.validation, BLOCK if carries else config.length
    watch = Stopwatch(folder := config.runs / f"text_{config.model}", asdict(config))
    model, history = afflow.fit(
        build(config, text.alphabet.num_values),
        windows,
        key=jax.random.key(config.seed),
        validation=held_out[: len(held_out) // row * row].reshape(-1, row),
        ema=None,
        max_epochs=config.epochs,
        learning_rate=config.learning_rate,
        optimizer=partial(make_optimizer, config) if config.model == "transformer" else None,
        patience=5,
        checkpoint=afflow.Checkpoint(folder / "steps", steps=100),
        callbacks=[watch.stop_after(config.minutes)],
        label=config.model,
    )
    return model, watch.report(history, config.length)


def score(model: afflow.AutoregressiveModel, symbols: np.ndarray, config: Config) -> np.ndarray:
    """Return the log-probability of every character of a text.

    A recurrent network and a WaveNet read the text as one sequence. A transformer reads windows of
    its length, of which the second half counts (the whole of the first window).
    """
    if config.model == "transformer":
        return score_by_windows(model, symbols)
    return np.asarray(model.with_length(len(symbols)).log_conditionals(symbols))


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    text = tiny_shakespeare(config.data_dir)
    model, course = train(config, text)
    nats = -score(model, text.symbols.test, config)
    blocks = nats[: len(nats) // 1000 * 1000].reshape(-1, 1000).mean(1)  # of nearby characters
    prompt = text.alphabet.encode(config.prompt)
    sample = continue_by_windows(
        model, jax.random.key(config.seed), prompt, 1500, temperature=config.temperature
    )
    results = {
        "test_nats": nats.mean(),
        "standard_error": blocks.std(ddof=1) / np.sqrt(len(blocks)),
        **course,
        "sample": text.alphabet.decode(sample),
    }
    save(config.out / f"{config.model}.json", config, results)
    (config.out / f"{config.model}.txt").write_text(results["sample"] + "\n")
    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for part in ("train", "validation"):
        axis.plot(results[part], label=part)
    axis.axhline(nats.mean(), color="tab:gray", linestyle=":", label="test")
    axis.set(xlabel="epoch", ylabel="nats per character", title=config.model, ylim=(1, 2.5))
    axis.legend()
    figure.savefig(config.out / f"{config.model}.png", dpi=120)
    print(results["sample"])
    print(f"test: {nats.mean():.4f} +- {results['standard_error']:.4f} nats per character")


if __name__ == "__main__":
    main(tyro.cli(Config))
