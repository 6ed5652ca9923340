"""Fit a TarFlow to MNIST, score the test images, and draw samples.

    python experiments/tarflow.py --data-dir FOLDER

The images are logits of dequantized grey levels, as in Papamakarios et al. 2017 (arXiv:1705.07057).
Validation chooses the epoch; the test images are scored once.
"""

import time
from dataclasses import dataclass, replace
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
from datasets import Split, mnist_logits
from datasets.mnist import bits_per_dim
from flax import nnx
from measuring.report import keep_programs, save

import afflow

ROOT = Path(__file__).parent
BATCH = 100  # images that are scored at once


@dataclass(frozen=True)
class Config:
    """The flow and its training."""

    univariate: Literal["affine", "mixture", "spline"] = "mixture"
    num_components: int = 5
    """Logistics of a mixture, or bins of a spline."""
    patch: int = 4
    num_blocks: int = 4
    num_layers: int = 2
    """Layers of attention of a block."""
    width: int = 128
    num_heads: int = 4
    batch_size: int = 32
    epochs: int = 6
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    minutes: float = 120.0
    """Training ends after the epoch in which this time is over."""
    max_images: int | None = None
    """Use at most this many images of each part."""
    small: bool = False
    """A tiny flow and few images, for a trial."""
    seed: int = 0
    data_dir: Path | None = None
    save: Path | None = None
    """Where to save the flow, for `afflow.load`."""
    out: Path = ROOT / "results" / "tarflow"
    runs: Path = ROOT.parent / "runs"

    @property
    def label(self) -> str:
        """The name of the files of this run."""
        return f"logit_{self.univariate}{'_small' * self.small}"


SMALL = {"patch": 7, "num_blocks": 2, "num_layers": 1, "width": 8, "epochs": 1, "max_images": 64}


def load(config: Config) -> Split:
    """Return the images `(N, 28, 28)` as logits."""
    split = mnist_logits(config.data_dir)
    return Split(*(part[: config.max_images].reshape(-1, 28, 28) for part in split))


def build(config: Config, images: np.ndarray) -> afflow.Flow:
    """Return the flow before training."""
    sizes = {"num_layers": config.num_layers, "width": config.width, "num_heads": config.num_heads}
    shape = images.shape[1:]
    univariates = {
        "affine": afflow.Affine,
        "mixture": partial(afflow.univariates.MixtureCDF, config.num_components),
        "spline": partial(afflow.RationalQuadraticSpline, config.num_components),
    }
    is_mixture = config.univariate == "mixture"  # of logistics, so that the noise is logistic too
    return afflow.zoo.tarflow(
        shape,
        config.patch,
        num_blocks=config.num_blocks,
        **sizes,
        univariate=univariates[config.univariate],
        data=images,
        base=afflow.distributions.Logistic(shape) if is_mixture else None,
        rngs=nnx.Rngs(config.seed),
    )


def make_optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """Return AdamW on clipped gradients, with a warm-up and a cosine decay to a hundredth.

    Weights decay in matrices only, which have a third axis in a `Repeat`.
    """
    warm_up, rate = min(500, num_steps // 4), config.learning_rate
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, warm_up, num_steps, rate / 100)

    def is_matrix(params):
        return jax.tree.map(lambda leaf: leaf.ndim > 2, params)

    adam = optax.adamw(schedule, 0.9, 0.95, weight_decay=config.weight_decay, mask=is_matrix)
    return optax.chain(optax.clip_by_global_norm(1.0), adam)


def train(config: Config, model: Any, data: Split) -> tuple[Any, Any]:
    """Return the trained model and the history of its losses."""
    start = time.perf_counter()
    return afflow.fit(
        model,
        data.train,
        key=jax.random.key(config.seed),
        validation=data.validation,
        batch_size=config.batch_size,
        max_epochs=config.epochs,
        optimizer=partial(make_optimizer, config),
        checkpoint=afflow.Checkpoint(config.runs / f"tarflow_{config.label}", steps=100),
        callbacks=[lambda epoch: time.perf_counter() - start > 60 * config.minutes],
        label=config.label,
    )


def score(model: Any, x: np.ndarray) -> np.ndarray:
    """Return the log-density of every image."""
    parts = [model.log_prob(x[i : i + BATCH]) for i in range(0, len(x), BATCH)]
    return np.concatenate(parts, dtype=float)


def report(scores: np.ndarray, bits: float, model: Any, history: Any) -> dict[str, Any]:
    """Return the contents of the results file."""
    return {
        "test_nats": scores.mean(),
        "standard_error": scores.std(ddof=1) / np.sqrt(len(scores)),
        "test_bits_per_dim": bits,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
        "train": history.train,
        "validation": history.validation,
        "best_epoch": history.best_epoch,
    }


def draw(rows: dict[str, np.ndarray]) -> plt.Figure:
    """Return a figure with a row of images for each name; grey levels are in [0, 1]."""
    size = len(next(iter(rows.values())))
    figure, axes = plt.subplots(
        len(rows), size, figsize=(0.75 * size, 0.8 * len(rows)), squeeze=False, layout="constrained"
    )
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    return figure


def main(config: Config) -> None:
    """Run the experiment."""
    if config.small:
        config = replace(config, **SMALL)
    keep_programs()
    data = load(config)
    model, history = train(config, build(config, data.train), data)
    if config.save:
        config.save.parent.mkdir(parents=True, exist_ok=True)
        afflow.save(model, config.save)
    scores = score(model, data.test)
    bits = bits_per_dim(scores, data.test.reshape(len(scores), -1))
    results = report(scores, bits, model, history)
    save(config.out / f"{config.label}.json", config, results)
    samples = np.asarray(model.sample(jax.random.key(config.seed), 30))
    levels = 1 / (1 + np.exp(-samples.reshape(3, 10, *samples.shape[1:])))
    rows = {f"sample {i + 1}": row for i, row in enumerate(levels)}
    draw(rows).savefig(config.out / f"{config.label}.png", dpi=120)
    print(
        "test: {test_nats:.2f} +- {standard_error:.2f} nats".format(**results), f"{bits:.4f} bits"
    )


if __name__ == "__main__":
    main(tyro.cli(Config))
