"""Fit a TarFlow to MNIST, score the test images, and draw samples.

    python experiments/tarflow.py --data-dir FOLDER
    python experiments/tarflow.py --space noise --univariate affine --data-dir FOLDER

In the space `logit` the images are logits of dequantized grey levels, as in Papamakarios et al.
2017 (arXiv:1705.07057). In the space `noise` the flow models the images of each class with Gaussian
noise, as in Zhai et al. 2024 (arXiv:2412.06329), and samples are drawn with guidance. Validation
chooses the epoch; the test images are scored once.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from datasets import Split, mnist, mnist_digits, mnist_logits
from datasets.mnist import bits_per_dim
from flax import nnx
from measuring.report import interleave, keep_programs, save, summary
from measuring.stopwatch import Stopwatch

import afflow

ROOT = Path(__file__).parent
BATCH = 100  # images that are scored at once


@dataclass(frozen=True)
class Config:
    """The flow and its training."""

    space: Literal["logit", "noise"] = "logit"
    sigma: float = 0.05
    """The standard deviation of the noise in the space `noise`; grey levels are in [-1, 1]."""
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
    epochs: int = 9
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    ema: float | None = None
    """The decay of a moving average of the parameters, which is then validated and scored."""
    minutes: float = 120.0
    """Training ends after the epoch in which this time of one CPU core is over."""
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
        return f"{self.space}_{self.univariate}{'_small' * self.small}"


SMALL = {"patch": 7, "num_blocks": 2, "num_layers": 1, "width": 8, "epochs": 1, "max_images": 64}


class Part(NamedTuple):
    """Images `(N, H, W)`, and their classes as one-hot vectors, or `None`."""

    images: np.ndarray
    classes: np.ndarray | None = None


def load(config: Config) -> Split:
    """Return the `Part`s for training, validation and test."""
    size = config.max_images
    if config.space == "logit":
        split = mnist_logits(config.data_dir)
        return Split(*(Part(part[:size].reshape(-1, 28, 28)) for part in split))
    images = [part[:size].reshape(-1, 28, 28) / 127.5 - 1 for part in mnist(config.data_dir)]
    classes = [np.eye(10, dtype=np.float32)[part[:size]] for part in mnist_digits(config.data_dir)]
    pairs = zip(images, classes, strict=True)
    return Split(*(Part(x.astype(np.float32), y) for x, y in pairs))


def build(config: Config, part: Part) -> afflow.Flow | afflow.models.NoisyFlow:
    """Return the model before training."""
    names = "num_blocks", "num_layers", "width", "num_heads"
    shape, is_logit = part.images.shape[1:], config.space == "logit"
    univariates = {
        "affine": afflow.Affine,
        "mixture": partial(afflow.univariates.MixtureCDF, config.num_components),
        "spline": partial(afflow.RationalQuadraticSpline, config.num_components),
    }
    is_mixture = config.univariate == "mixture"  # of logistics, so that the noise is logistic too
    flow = afflow.zoo.tarflow(
        shape,
        config.patch,
        **{name: getattr(config, name) for name in names},
        context_dim=0 if part.classes is None else part.classes.shape[1],
        univariate=univariates[config.univariate],
        data=part.images if is_logit else None,
        base=afflow.distributions.Logistic(shape) if is_mixture else None,
        rngs=nnx.Rngs(config.seed),
    )
    return flow if is_logit else afflow.models.NoisyFlow(flow, config.sigma)


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


def train(config: Config, model: Any, data: Split) -> tuple[Any, dict[str, Any]]:
    """Return the trained model, and the course of its training for the results file."""
    folder = config.runs / f"tarflow_{config.label}"
    watch = Stopwatch(folder, asdict(config))
    model, history = afflow.fit(
        model,
        data.train.images,
        context=data.train.classes,
        key=jax.random.key(config.seed),
        ema=config.ema,
        validation=tuple(part for part in data.validation if part is not None),
        batch_size=config.batch_size,
        max_epochs=config.epochs,
        optimizer=partial(make_optimizer, config),
        checkpoint=afflow.Checkpoint(folder / "steps", steps=100),
        callbacks=[watch.stop_after(config.minutes)],
        label=config.label,
    )
    return model, watch.report(history)


def score(model: Any, part: Part) -> np.ndarray:
    """Return the log-density of every image, or its bound on the log-probability."""

    def score_batch(i):
        classes = None if part.classes is None else part.classes[i : i + BATCH]
        return model.log_prob(part.images[i : i + BATCH], classes)

    parts = [score_batch(i) for i in range(0, len(part.images), BATCH)]
    return np.concatenate(parts, dtype=float)


def report(config: Config, model: Any, part: Part) -> dict[str, Any]:
    """Score the test images and return the results, with the number of parameters."""
    scores = score(model, part)
    if config.space == "logit":
        bits = bits_per_dim(scores, part.images.reshape(len(scores), -1))
    else:
        bits = float(afflow.bits_per_dim(scores.mean(), part.images.shape[1:], levels=1))
    return {
        "test_nats": scores.mean(),
        "standard_error": scores.std(ddof=1) / np.sqrt(len(scores)),
        "test_bits_per_dim": bits,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
    }


def time_sampling(model: Any, part: Part, size: int = 64) -> dict[str, Any]:
    """Return the times of samples and of densities of a batch, and their ratio."""
    flow, images = getattr(model, "flow", model), part.images[:size]
    classes = None if part.classes is None else part.classes[:size]
    shape = len(images) if classes is None else ()
    runs = {
        "sample": lambda: flow.sample(jax.random.key(0), shape, classes),
        "density": lambda: flow.log_prob(images, classes),
    }
    for run in runs.values():
        jax.block_until_ready(run())  # compiles
    times = {name: summary(values) for name, values in interleave(runs, 7, 60.0).items()}
    passes = times["sample"]["median_ms"] / times["density"]["median_ms"]
    return times | {"batch": len(images), "density_passes": passes}


def sample(config: Config, model: Any) -> dict[str, np.ndarray]:
    """Return rows of samples by name, with grey levels in [0, 1]."""
    key = jax.random.key(config.seed)
    if config.space == "logit":
        samples = np.asarray(model.sample(key, 30))
        levels = 1 / (1 + np.exp(-samples.reshape(3, 10, *samples.shape[1:])))
        return {f"sample {i + 1}": row for i, row in enumerate(levels)}
    classes = np.eye(*model.context_shape, dtype=np.float32)
    raw = model.flow.sample(key, context=classes)
    rows = {"with noise": raw, "denoised": model.denoise(raw, classes)}
    for weight in (1.0, 2.0, 3.0):
        drawn = afflow.zoo.guide(model.flow, weight).sample(key, context=classes)
        rows[f"guided by {weight:g}"] = model.denoise(drawn, classes)
    for temperature in (0.9, 0.8):
        drawn = afflow.zoo.cool(model.flow, temperature).sample(key, context=classes)
        rows[f"temperature {temperature}"] = model.denoise(drawn, classes)
    return {name: np.asarray(row) / 2 + 0.5 for name, row in rows.items()}


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
    model, course = train(config, build(config, data.train), data)
    if config.save:
        config.save.parent.mkdir(parents=True, exist_ok=True)
        afflow.save(model, config.save)
    results = report(config, model, data.test) | course
    results["sampling"] = time_sampling(model, data.test)
    save(config.out / f"{config.label}.json", config, results)
    draw(sample(config, model)).savefig(config.out / f"{config.label}.png", dpi=120)
    nats, error, bits = (results[n] for n in ("test_nats", "standard_error", "test_bits_per_dim"))
    print(f"test: {nats:.2f} +- {error:.2f} nats, {bits:.4f} bits per dimension")


if __name__ == "__main__":
    main(tyro.cli(Config))
