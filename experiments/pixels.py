"""Fit an autoregressive model of images, score the test images, and draw samples and completions.

    python experiments/pixels.py --model gated --data binarized_mnist --data-dir FOLDER

Validation chooses the epoch; the test images are scored once. A completion is given the upper half
of a test image, or a coarse image for networks with another order.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from datasets.images import LEVELS, images
from flax import nnx
from measuring.report import keep_programs, save
from measuring.stopwatch import Stopwatch

import afflow

ROOT = Path(__file__).parent
FACTORIES = {
    "pixelcnn": afflow.zoo.pixelcnn,
    "gated": afflow.zoo.gated_pixelcnn,
    "pixelcnn_pp": afflow.zoo.pixelcnn_pp,
    "row_lstm": afflow.zoo.row_lstm,
    "diagonal_lstm": afflow.zoo.diagonal_lstm,
    "multiscale": afflow.zoo.multiscale,
    "subscale": afflow.zoo.subscale,
}
Model = Literal[
    "pixelcnn", "gated", "pixelcnn_pp", "row_lstm", "diagonal_lstm", "multiscale", "subscale"
]


@dataclass(frozen=True)
class Config:
    """The network and its training."""

    model: Model = "gated"
    data: Literal["binarized_mnist", "mnist", "fashion", "cifar10"] = "binarized_mnist"
    channels: int = 32
    num_layers: int = 10
    """Layers of the network; blocks of a PixelCNN or of a multiscale network."""
    num_blocks: tuple[int, ...] = (1, 1, 2)
    """Blocks at each resolution of a PixelCNN++, or of the embedder of a subscale network."""
    factor: int = 4
    """The distance of the rows, and of the columns, of a slice of a subscale network."""
    conditional: Literal["logistics", "softmax"] = "logistics"
    """The distribution of a grey level: a mixture of logistics, or a probability for each level."""
    num_components: int = 5
    """Logistics of a grey level."""
    dropout: float = 0.0
    """For all models but a PixelCNN."""
    ema: float | None = None
    """The decay of an average of the parameters, which is then scored."""
    batch_size: int = 16
    epochs: int = 8
    learning_rate: float = 2e-3
    minutes: float = 120.0
    """Training ends after the epoch in which this time of one CPU core is over."""
    max_images: int | None = None
    """Use at most this many images of each part, for a quick trial."""
    seed: int = 0
    data_dir: Path | None = None
    save: Path | None = None
    """Where to save the model, for `afflow.load`."""
    out: Path = ROOT / "results" / "pixels"
    runs: Path = ROOT.parent / "runs"

    @property
    def label(self) -> str:
        """The name of the files of this run."""
        softmax = "_softmax" if self.conditional == "softmax" else ""
        return f"{self.data}_{self.model}{softmax}"


def build(config: Config, shape: tuple[int, ...]) -> afflow.models.Reshaped:
    """Return the model of an image."""
    options = {"conditional": make_conditional(config, shape), "rngs": nnx.Rngs(config.seed)}
    options["width" if config.model == "subscale" else "channels"] = config.channels
    if config.model != "pixelcnn":
        options["dropout"] = config.dropout
    return FACTORIES[config.model](shape, **options, **choose_depths(config))


def choose_depths(config: Config) -> dict:
    """Return the options of the factory that say how deep the network is."""
    if config.model in ("pixelcnn", "multiscale"):
        return {"num_blocks": config.num_layers}
    if config.model == "pixelcnn_pp":
        return {"num_blocks": config.num_blocks}
    if config.model == "subscale":
        blocks = config.num_blocks[0]
        return {"num_layers": config.num_layers, "num_blocks": blocks, "factor": config.factor}
    return {"num_layers": config.num_layers}


def make_conditional(config: Config, shape: tuple[int, ...]) -> afflow.conditionals.Conditional:
    """Return the distribution of a value, or of the colour pixels of a PixelCNN++."""
    levels, number = LEVELS[config.data], config.num_components
    if levels == 2:
        return afflow.conditionals.Bernoulli()
    if config.model == "pixelcnn_pp" and len(shape) == 3:
        return afflow.conditionals.ChannelLogistics(shape[2], number, levels)
    if config.conditional == "softmax":
        return afflow.conditionals.CategoricalLevels(levels)
    return afflow.conditionals.DiscretizedLogistics(number, levels)


def make_optimizer(rate: float, num_steps: int) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, with a warm-up and a cosine decay to zero."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, min(500, num_steps // 4), num_steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def score(model: afflow.models.Reshaped, x: np.ndarray) -> np.ndarray:
    """Return the nats of every image."""
    parts = [model.log_prob(x[i : i + 100]) for i in range(0, len(x), 100)]
    return -np.concatenate(parts)


def find_observed(config: Config, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels that a completion is given: the upper half, or a coarse image."""
    observed = np.zeros(shape, bool)
    if step := {"multiscale": 4, "subscale": config.factor}.get(config.model):
        observed[::step, ::step] = True
    else:
        observed[: shape[0] // 2] = True
    return observed


def draw(model: afflow.models.Reshaped, x: np.ndarray, config: Config) -> plt.Figure:
    """Return a figure of samples, and of completed test images."""
    observed = find_observed(config, model.token_axes)
    samples = np.asarray(model.sample(jax.random.key(config.seed), 24))
    completed = model.complete(
        np.tile(x[:8], (2, *[1] * (x.ndim - 1))), observed, jax.random.key(1)
    )
    rows = [*samples.reshape(3, 8, *x.shape[1:]), x[:8]]
    rows += [*np.asarray(completed).reshape(2, 8, *x.shape[1:])]
    names = "sample", "sample", "sample", "test image", "completed", "completed"
    figure, axes = plt.subplots(len(rows), 8, figsize=(7, 5.4), layout="constrained")
    for row, shown, name in zip(axes, rows, names, strict=True):
        for axis, image in zip(row, shown, strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=LEVELS[config.data] - 1)
            axis.set(xticks=[], yticks=[])
            if name == "completed" and config.model not in ("multiscale", "subscale"):
                axis.axhline(x.shape[1] // 2 - 0.5, color="tab:orange", linewidth=0.8)
        row[0].set_ylabel(name, fontsize=8)
    return figure


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    data = images(config.data, config.data_dir)
    data = type(data)(*(part[: config.max_images] for part in data))
    watch = Stopwatch(folder := config.runs / f"pixels_{config.label}", asdict(config))
    model, history = afflow.fit(
        build(config, data.train.shape[1:]),
        data.train,
        key=jax.random.key(config.seed),
        validation=data.validation,
        batch_size=config.batch_size,
        max_epochs=config.epochs,
        optimizer=partial(make_optimizer, config.learning_rate),
        ema=config.ema,
        checkpoint=afflow.Checkpoint(folder / "steps", steps=100),
        callbacks=[watch.stop_after(config.minutes)],
        label=config.label,
    )
    course = watch.report(history)
    if config.save:
        config.save.parent.mkdir(parents=True, exist_ok=True)
        afflow.save(model, config.save)
    nats = score(model, data.test)
    mean, error = nats.mean(), nats.std(ddof=1) / np.sqrt(len(nats))
    bits = float(afflow.bits_per_dim(-mean, data.test.shape[1:], levels=1))
    results = {
        "test_nats": mean,
        "standard_error": error,
        "test_bits_per_dim": bits,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))),
        **course,
    }
    save(config.out / f"{config.label}.json", config, results)
    draw(model, data.test[:: max(len(data.test) // 8, 1)], config).savefig(
        config.out / f"{config.label}.png", dpi=120
    )
    print(f"test: {mean:.3f} +- {error:.3f} nats, {bits:.4f} bits per dimension")


if __name__ == "__main__":
    main(tyro.cli(Config))
