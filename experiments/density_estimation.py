"""Fit a flow to one of the field's benchmarks; report its test log-likelihood.

    python experiments/density_estimation.py --dataset power --model nsf --data-dir FOLDER

The model is chosen by validation, and the test set is scored once, at the end. Leaves
results and a learning curve under `results/`, and the parameters under `runs/`.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from benchmarks import FAST, PAPER, Settings, build
from datasets import DENSITIES
from flax import nnx
from report import save

import afflow

ROOT = Path(__file__).parent
PRESETS = {"fast": FAST, "paper": PAPER}


@dataclass(frozen=True)
class Config:
    """What to fit to what; settings that are not given are those of the preset."""

    dataset: Literal["power", "gas", "hepmass", "miniboone", "bsds300", "mnist"] = "power"
    model: Literal["maf", "nsf", "mixture"] = "maf"
    preset: Literal["fast", "paper"] = "fast"
    data_dir: Path | None = None
    seed: int = 0
    num_layers: int | None = None
    hidden: tuple[int, ...] | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    weight_decay: float | None = None
    epochs: int | None = None
    out: Path = ROOT / "results" / "density"
    runs: Path = ROOT.parent / "runs"

    @property
    def name(self) -> str:
        return f"{self.dataset}_{self.model}"


class Fitted(NamedTuple):
    """A trained flow, and how its training went."""

    flow: afflow.Flow
    history: afflow.History
    seconds: float


def settings_of(config: Config) -> Settings:
    """Return the preset's settings, with those that the user gave in their place."""
    chosen = PRESETS[config.preset].get((config.dataset, config.model), Settings())
    given = {name: getattr(config, name, None) for name in asdict(chosen)}
    return replace(chosen, **{name: value for name, value in given.items() if value is not None})


def optimizer(settings: Settings):
    """Return what makes AdamW on clipped gradients, with a cosine decay, from the steps."""

    def make(num_steps: int) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(settings.learning_rate, num_steps)
        adam = optax.adamw(schedule, weight_decay=settings.weight_decay)
        return optax.chain(optax.clip_by_global_norm(5.0), adam)

    return make


def train(config: Config, settings: Settings, data) -> Fitted:
    """Fit the flow, chosen by its validation loss."""
    start = time.perf_counter()
    flow, history = afflow.fit(
        build(config.model, settings, data.train, config.seed),
        data.train,
        key=jax.random.key(config.seed),
        validation=data.validation,
        batch_size=settings.batch_size,
        max_epochs=settings.epochs,
        patience=settings.patience,
        optimizer=optimizer(settings),
    )
    return Fitted(flow, history, time.perf_counter() - start)


def log_probs(flow: afflow.Flow, x: np.ndarray, batch_size: int = 4096) -> np.ndarray:
    """Return the log-density of every row, a batch at a time."""
    cuts = range(0, len(x), batch_size)
    return np.concatenate([flow.log_prob(x[cut : cut + batch_size]) for cut in cuts], dtype=float)


def summarize(scores: np.ndarray) -> dict[str, float]:
    """Return a mean log-likelihood in nats and two of its standard errors."""
    return {"nats": scores.mean(), "two_standard_errors": 2 * scores.std() / len(scores) ** 0.5}


def draw_history(history: afflow.History, title: str, path: Path) -> None:
    """Draw the learning curve, from where it has left its first steep fall."""
    figure, axis = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for name in ("train", "validation"):
        losses = getattr(history, name)
        axis.plot(range(1, len(losses) + 1), np.negative(losses), label=name)
    axis.axvline(history.best_epoch + 1, color="gray", linewidth=0.8)
    axis.set(title=title, xlabel="epoch", ylabel="log-likelihood (nats)")
    axis.set_ylim(np.quantile(np.negative(history.validation), 0.05))
    axis.legend()
    figure.savefig(path, dpi=120)


def save_params(flow: afflow.Flow, path: Path) -> None:
    """Write the trained arrays, by their paths in the module, as npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    leaves, _ = jax.tree.flatten_with_path(nnx.state(flow))
    np.savez(path, **{jax.tree_util.keystr(name): leaf for name, leaf in leaves})


def main(config: Config) -> None:
    """Train, score the test set once, and write what came out."""
    settings = settings_of(config)
    data = DENSITIES[config.dataset](config.data_dir)
    print(config.name, [part.shape for part in data], settings, flush=True)
    fitted = train(config, settings, data)
    save_params(fitted.flow, config.runs / f"{config.name}.npz")
    history = fitted.history
    results = {
        "dataset": config.dataset,
        "model": config.model,
        "preset": config.preset,
        "seed": config.seed,
        "sizes": [len(part) for part in data],
        "dim": data.test.shape[1],
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(fitted.flow, nnx.Param))),
        "test": summarize(log_probs(fitted.flow, data.test)),
        "validation": -history.validation[history.best_epoch],
        "best_epoch": history.best_epoch + 1,
        "epochs": len(history.train),
        "seconds": fitted.seconds,
        "history": history._asdict(),
    }
    print("{nats:.3f} +- {two_standard_errors:.3f} nats".format(**results["test"]))
    save(config.out / f"{config.name}.json", settings, results)
    draw_history(history, config.name, config.out / f"{config.name}.png")


if __name__ == "__main__":
    main(tyro.cli(Config))
