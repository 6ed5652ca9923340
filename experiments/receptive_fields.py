"""Which pixels each network of images sees from one pixel, and its steps of sampling.

    python experiments/receptive_fields.py  # a minute on two cores

The weights are random. A pixel is seen if the parameters of the chosen pixel depend on its value.
In the picture, darker pixels have larger derivatives. Hatched pixels come before the chosen pixel
and are not seen.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from flax import nnx
from measuring.report import keep_programs, save

import afflow
from afflow import conditioners


@dataclass(frozen=True)
class Config:
    """The sizes of the images, and the chosen pixel."""

    side: int = 15
    row: int = 9
    column: int = 6
    seed: int = 0
    full_side: int = 28
    """Side of the image whose steps of sampling are counted."""
    out: Path = Path(__file__).parent / "results"


def build(side: int, rngs: nnx.Rngs) -> dict[str, afflow.Conditioner]:
    """Return the networks, with one parameter for each pixel."""
    shape, sizes = (side, side), {"channels": 16, "rngs": rngs}
    return {
        "PixelCNN": conditioners.PixelCNN(shape, 1, num_blocks=4, kernel_size=5, **sizes),
        "Gated PixelCNN": conditioners.GatedPixelCNN(shape, 1, num_layers=6, **sizes),
        "PixelCNN++": conditioners.PixelCNNPP(shape, 1, num_blocks=(2, 2), **sizes),
        "Row LSTM": conditioners.RowLSTM(shape, 1, num_layers=2, kernel_size=5, **sizes),
        "Diagonal BiLSTM": conditioners.DiagonalLSTM(shape, 1, num_layers=2, **sizes),
        "multiscale": conditioners.Multiscale(shape, 1, num_blocks=4, **sizes),
    }


def randomize(network: afflow.Conditioner, seed: int) -> afflow.Conditioner:
    """Return the network with small random numbers added, since the last weights start at zero."""
    graph, params, rest = nnx.split(network, nnx.Param, ...)
    keys = iter(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(params))))
    params = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape), params)
    return nnx.merge(graph, params, rest)


def look(network: afflow.Conditioner, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivative by each pixel, and which pixels come before, both `(H, W)`."""
    tokens = config.side**2
    order = np.array(getattr(network, "order", None) or range(tokens))
    own = int(np.flatnonzero(order == config.row * config.side + config.column)[0])
    x = jax.random.normal(jax.random.key(config.seed + 1), (5, tokens))

    def slope(x):
        return jnp.abs(jax.grad(lambda x: network(x)[own, 0])(x))

    slopes = np.asarray(jax.jit(jax.vmap(slope))(x)).max(0)
    parents = getattr(network, "adjacency", np.tri(tokens, k=-1))
    back = np.argsort(order)
    shape = config.side, config.side
    return slopes[back].reshape(shape), np.asarray(parents[own] > 0)[back].reshape(shape)


def draw(axis: plt.Axes, slopes: np.ndarray, before: np.ndarray, config: Config) -> None:
    """Draw the derivatives of one network."""
    shown = np.where(slopes > 0, np.log10(np.maximum(slopes, 1e-12)), np.nan)
    low = np.nanmin(shown) - 1
    axis.imshow(shown, cmap="Blues", vmin=low)
    for i, j in zip(*np.nonzero(before & (slopes == 0)), strict=True):
        patch = plt.Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", lw=0)
        patch.set_edgecolor("tab:orange")
        axis.add_patch(patch)
    axis.plot(config.column, config.row, "s", color="tab:red", markersize=6)
    axis.set(xticks=[], yticks=[])


def main(config: Config) -> None:
    """Run the experiment."""
    keep_programs()
    networks = build(config.side, nnx.Rngs(config.seed))
    steps = {name: config.full_side**2 for name in networks}
    full = build(config.full_side, nnx.Rngs(config.seed))["multiscale"]
    steps["multiscale"] = full.num_groups
    figure, axes = plt.subplots(2, 3, figsize=(7, 5), layout="constrained")
    results = {}
    for axis, (name, network) in zip(axes.flat, networks.items(), strict=True):
        slopes, before = look(randomize(network, config.seed), config)
        draw(axis, slopes, before, config)
        axis.set_title(name, fontsize=10)
        results[name] = {
            "pixels_before": int(before.sum()),
            "pixels_seen": int((slopes > 0).sum()),
            "steps_of_sampling": steps[name],
        }
        print(f"{name:16s} {results[name]}", flush=True)
    save(config.out / "receptive_fields.json", config, results)
    figure.savefig(config.out / "receptive_fields.png", dpi=120)


if __name__ == "__main__":
    main(tyro.cli(Config))
