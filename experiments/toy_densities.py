"""Fit a flow to each of several two-dimensional densities, and draw the learned density.

    python experiments/toy_densities.py --help

Writes a picture and a file of test log-likelihoods, in about four minutes on two CPU cores.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from flax import nnx
from measuring.report import keep_programs, save
from targets.toy_data import DENSITIES, ENTROPIES, PLANE, TORUS

import afflow

EDGE = 4.4  # a panel shows [-EDGE, EDGE]^2, or the torus


def stack(factory: Callable[..., afflow.Flow]) -> Callable:
    """Return `make(config, x, rngs)` for a factory of flows with several layers."""

    def make(config: "Config", x: np.ndarray, rngs: nnx.Rngs) -> afflow.Flow:
        return factory(2, num_layers=config.num_layers, hidden=config.hidden, data=x, rngs=rngs)

    return make


def single(factory: Callable[..., afflow.Flow]) -> Callable:
    """Return `make(config, x, rngs)` for a factory without a number of layers."""

    def make(config: "Config", x: np.ndarray, rngs: nnx.Rngs) -> afflow.Flow:
        return factory(2, hidden=config.hidden, data=x, rngs=rngs)

    return make


def gaussianization(config: "Config", x: np.ndarray, rngs: nnx.Rngs) -> afflow.Flow:
    """Return a flow of mixture CDFs and rotations, which has no networks."""
    sizes = {"num_layers": config.num_layers, "num_components": config.num_components}
    return afflow.zoo.gaussianization_flow(2, **sizes, data=x, rngs=rngs)


def circular(config: "Config", x: np.ndarray, rngs: nnx.Rngs) -> afflow.Flow:
    """Return a flow of angles."""
    sizes = {"num_layers": config.num_layers, "hidden": config.hidden}
    return afflow.zoo.circular_nsf(2, **sizes, rngs=rngs)


STACKS = (
    afflow.maf,
    afflow.iaf,
    afflow.nsf,
    afflow.naf,
    afflow.bnaf,
    afflow.zoo.umnn,
    afflow.zoo.sospf,
    afflow.zoo.bpf,
    afflow.coupling_flow,
    afflow.realnvp,
    afflow.zoo.nice,
    afflow.nsf_coupling,
)
MODELS = (
    {factory.__name__: stack(factory) for factory in STACKS}
    | {factory.__name__: single(factory) for factory in (afflow.made, afflow.cnf)}
    | {"gaussianization_flow": gaussianization, "circular_nsf": circular}
)
Model = tyro.extras.literal_type_from_choices(MODELS)
Density = tyro.extras.literal_type_from_choices(DENSITIES)


@dataclass(frozen=True)
class Config:
    """Fit a flow to two-dimensional densities, and draw the learned densities."""

    densities: tuple[Density, ...] = ()
    """The densities to fit, one column of the picture each; by default all on the model's space."""
    model: Model = "maf"
    """The factory of the flow."""
    num_layers: int = 16
    """Number of layers, for factories that have layers; 16 suits affine layers, 3 to 5 splines."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers of each network; for `bnaf`, widths per coordinate."""
    num_components: int = 8
    """Components of each mixture CDF, for `gaussianization_flow`."""
    num_samples: int = 100_000
    """Rows of data; a tenth of the rows is held out to choose the best epoch."""
    num_test: int = 20_000
    """Rows of a separate sample, for the reported log-likelihood only."""
    max_epochs: int = 40
    """Passes over the training rows."""
    learning_rate: float = 1e-3
    """Initial learning rate; it decays to zero along a cosine."""
    seed: int = 0
    """Seed of the data, the initial weights and the order of the minibatches."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON and the picture."""


class Fit(NamedTuple):
    """A fitted flow with its training data, and its score in nats on test data."""

    density: str
    flow: afflow.Flow
    x: np.ndarray
    score: dict[str, float]


def trained(
    flow: afflow.Flow, x: np.ndarray, config: Config
) -> tuple[afflow.Flow, afflow.training.History, int | None]:
    """Fit a flow; return it, its history and `None`.

    If the training diverges, return the best flow so far, its history and the epoch of divergence.
    """
    options = {"max_epochs": config.max_epochs, "learning_rate": config.learning_rate}
    try:
        flow, history = afflow.fit(flow, x, key=jax.random.key(config.seed), **options)
    except afflow.training.NonFiniteLossError as error:
        return error.flow, error.history, error.epoch
    return flow, history, None


def fit(density: str, config: Config) -> Fit:
    """Draw training and test data, fit a flow, and score it."""
    rng = np.random.default_rng([config.seed, list(DENSITIES).index(density)])
    x, x_test = (DENSITIES[density](rng, n) for n in (config.num_samples, config.num_test))
    start = time.perf_counter()
    flow, history, diverged = trained(
        MODELS[config.model](config, x, nnx.Rngs(config.seed)), x, config
    )
    seconds = time.perf_counter() - start
    log_prob = np.asarray(flow.log_prob(x_test), np.float64)
    entropy = ENTROPIES.get(density)
    score = {
        "test_log_likelihood": round(log_prob.mean(), 4),
        "standard_error": round(log_prob.std(ddof=1) / len(log_prob) ** 0.5, 4),
        "nats_below_the_truth": entropy and round(-log_prob.mean() - entropy, 4),
        "best_epoch": history.best_epoch,
        "diverged_in_epoch": diverged,
        "seconds": round(seconds, 1),
    }
    return Fit(density, flow, x, score)


def draw(fits: list[Fit], path: Path) -> None:
    """Draw a column per density: data, samples of the flow, the density of the flow."""
    size = (1.6 * len(fits) + 0.3, 5.28)
    figure, axes = plt.subplots(3, len(fits), figsize=size, squeeze=False, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for column, fitted in zip(axes.T, fits, strict=True):
        samples = fitted.flow.sample(jax.random.key(0), 6000)
        scatter(column[0], fitted.x[:6000])
        scatter(column[1], samples)
        edge = np.pi if fitted.density in TORUS else EDGE
        heat(column[2], fitted.flow, edge)
        column[0].set_title(fitted.density.replace("_", " "), fontsize=11)
        nats = f"{fitted.score['test_log_likelihood']:.2f} nats".replace("-", "\N{MINUS SIGN}")
        column[2].set_xlabel(nats, fontsize=10)
        for ax in column:
            ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
    for ax, label in zip(axes[:, 0], ["data", "samples", "density"], strict=True):
        ax.set_ylabel(label, fontsize=11)
    figure.savefig(path, dpi=150)


def scatter(ax: plt.Axes, x: np.ndarray) -> None:
    """Draw rows as dots, in the colours of the density."""
    ax.set_facecolor(plt.get_cmap("magma")(0.0))
    ax.scatter(*x.T, s=1.2, color=plt.get_cmap("magma")(0.8), alpha=0.5, linewidths=0)


def heat(ax: plt.Axes, flow: afflow.Flow, edge: float, size: int = 300) -> None:
    """Draw a density on a grid, with one colour for its highest half percent."""
    ticks = np.linspace(-edge, edge, size, endpoint=False, dtype=np.float32)
    density = np.exp(flow.log_prob(np.stack(np.meshgrid(ticks, ticks), -1)))  # (size, size)
    extent = (-edge, edge, -edge, edge)
    top = np.quantile(density, 0.995)
    ax.imshow(density, cmap="magma", origin="lower", extent=extent, vmin=0, vmax=top)


def main(config: Config) -> None:
    """Fit every density, then write the picture and the scores."""
    keep_programs()
    fits = []
    space = TORUS if config.model == "circular_nsf" else PLANE
    for density in config.densities or space:
        print(density)
        fits.append(fit(density, config))
        print("{test_log_likelihood} +- {standard_error} nats".format(**fits[-1].score))
    name = "toy_densities" if config.model == "maf" else f"toy_densities_{config.model}"
    save(config.out / f"{name}.json", config, {f.density: f.score for f in fits})
    draw(fits, config.out / f"{name}.png")
    print(f"Written: {name}.json and .png in {config.out.name}/")


if __name__ == "__main__":
    main(tyro.cli(Config))
