"""Compare two posteriors of a variational autoencoder: a diagonal Gaussian, and a flow.

    python experiments/vae.py --data-dir FOLDER

Both models have the same encoder and decoder, and train alike on binarized MNIST. Validation
chooses the epoch. The test images are scored once, by the bound and by the importance-weighted
bound. The difference of two models is a mean over images, with its standard error.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from datasets.files import Split
from datasets.images import images
from flax import nnx
from measuring.bits import estimate_mean
from measuring.report import keep_programs, save
from measuring.stopwatch import Stopwatch

import afflow

ROOT = Path(__file__).parent


@dataclass(frozen=True)
class Config:
    """The networks and their training."""

    layers: tuple[int, ...] = (0, 2)
    """Layers of the flow of each posterior; 0 is a diagonal Gaussian."""
    num_latents: int = 32
    hidden: tuple[int, ...] = (300, 300)
    """Widths of the encoder, and of the decoder in reverse."""
    flow_hidden: tuple[int, ...] = (320,)
    """Widths of each layer of a flow."""
    context_dim: int = 128
    batch_size: int = 100
    warm_up: tuple[float, ...] = (0.1, 0.3, 0.6)
    """Weights of the divergence in the first epochs, one epoch each."""
    epochs: int = 40
    """Epochs with the weight 1."""
    learning_rate: float = 1e-3
    num_samples: int = 100
    """Draws of an image's code in the importance-weighted bound."""
    max_images: int | None = None
    """Use at most this many images of each part."""
    minutes: float = 60.0
    """The training of a model ends after the epoch in which this time of one CPU core is over."""
    seed: int = 0
    data_dir: Path | None = None
    out: Path = ROOT / "results"
    runs: Path = ROOT.parent / "runs"


def build(config: Config, num_layers: int) -> afflow.models.VAE:
    """Return the model before training."""
    return afflow.zoo.vae(
        (28, 28),
        config.num_latents,
        num_layers=num_layers,
        hidden=config.hidden,
        flow_hidden=config.flow_hidden,
        context_dim=config.context_dim,
        rngs=nnx.Rngs(config.seed),
    )


def make_optimizer(config: Config, num_steps: int) -> optax.GradientTransformation:
    """Return Adam on clipped gradients, with a cosine decay to a hundredth."""
    schedule = optax.cosine_decay_schedule(config.learning_rate, num_steps, 0.01)
    return optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))


def train(config: Config, model: Any, data: Any, label: str) -> tuple[Any, dict[str, Any]]:
    """Return the trained model, its losses with the weight 1, and its cost."""
    watch, history = Stopwatch(folder := config.runs / f"vae_{label}", asdict(config)), None
    for weight in (*config.warm_up, 1.0):
        is_last = weight == 1
        model, history = afflow.fit(
            model.with_kl_weight(weight),
            data.train,
            key=jax.random.key(config.seed),
            ema=None,
            validation=data.validation,
            batch_size=config.batch_size,
            max_epochs=config.epochs if is_last else 1,
            patience=config.epochs,
            optimizer=partial(make_optimizer, config) if is_last else optax.adam(1e-3),
            checkpoint=afflow.Checkpoint(folder / str(weight), steps=500),
            callbacks=[watch.stop_after(config.minutes)],
            label=f"{label}, weight {weight}",
        )
    return model, watch.report(history)


def score(config: Config, model: Any, x: np.ndarray, num_samples: int) -> np.ndarray:
    """Return the bound of each image in nats, with `num_samples` draws of its code."""
    key, size = jax.random.key(config.seed), 100
    parts = [model.elbo(key, x[i : i + size], num_samples) for i in range(0, len(x), size)]
    return np.concatenate(parts, dtype=float)


def report(config: Config, model: Any, x: np.ndarray) -> dict[str, Any]:
    """Return the bounds of the test images, and the number of parameters."""
    bounds = {
        "bound": score(config, model, x, 1),
        f"bound_{config.num_samples}": score(config, model, x, config.num_samples),
    }
    for name, nats in bounds.items():
        print(f"{name}: {nats.mean():.2f} +- {estimate_mean(nats)[1]:.2f} nats", flush=True)
    return {
        "scores": bounds,
        "parameters": sum(a.size for a in jax.tree.leaves(nnx.state(model, nnx.Param))),
    }


def draw(config: Config, models: dict[str, Any], path: Path) -> None:
    """Draw samples of each model: the probabilities of the pixels given random codes."""
    figure, axes = plt.subplots(len(models), 10, figsize=(10, 1.2 * len(models)), squeeze=False)
    for row, (name, model) in zip(axes, models.items(), strict=True):
        z = jax.vmap(model.prior.sample)(jax.random.split(jax.random.key(config.seed), 10))
        for ax, logits in zip(row, jax.vmap(model.compute_params)(z), strict=True):
            ax.imshow(jax.nn.sigmoid(logits[..., 0]), cmap="gray", vmin=0, vmax=1)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def main(config: Config) -> None:
    """Train the models, score them, and write the results."""
    keep_programs()
    parts = images("binarized_mnist", config.data_dir)
    data = Split(*(part[: config.max_images] for part in parts))
    models, results = {}, {}
    for num_layers in config.layers:
        label = f"iaf_{num_layers}" if num_layers else "diagonal"
        model = build(config, num_layers)
        print(f"{label}", flush=True)
        models[label], course = train(config, model, data, label)
        results[label] = report(config, models[label], data.test) | course
    first, *others = models
    for label in others:
        for name, nats in results[label]["scores"].items():
            gain, error = estimate_mean(nats - results[first]["scores"][name])
            results[label][f"gain_{name}"] = {"mean": gain, "standard_error": error}
            print(f"{label}, {name}: {gain:+.2f} +- {error:.2f} nats over {first}", flush=True)
    for found in results.values():
        for name, nats in found.pop("scores").items():
            found[name] = dict(zip(("mean", "standard_error"), estimate_mean(nats), strict=True))
    save(config.out / "vae.json", config, results)
    draw(config, models, config.out / "vae.png")


if __name__ == "__main__":
    main(tyro.cli(Config))
