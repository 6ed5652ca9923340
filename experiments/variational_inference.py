"""Fit a diagonal Gaussian, a MAF and an IAF to four posteriors, and compare with references.

    python experiments/variational_inference.py --help

Writes a picture and a table of evidence bounds, in three minutes on two CPU cores.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from flax import nnx
from measuring.report import save
from targets.posteriors import POSTERIORS, Posterior

import afflow

LABELS = {"gaussian": "diagonal Gaussian", "maf": "MAF", "iaf": "IAF"}
COLORS = {"gaussian": "#c44e52", "maf": "#4c72b0", "iaf": "#dd8452"}
OBJECTIVES = {
    f.__name__: f
    for f in (
        afflow.inference.sticking_the_landing,
        afflow.inference.reverse_kl,
        afflow.inference.doubly_reparameterized,
        afflow.inference.importance_weighted,
        afflow.inference.forward_kl,
    )
}
Model = tyro.extras.literal_type_from_choices(LABELS)
Name = tyro.extras.literal_type_from_choices(POSTERIORS)
Objective = tyro.extras.literal_type_from_choices(OBJECTIVES)


@dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    posteriors: tuple[Name, ...] = tuple(POSTERIORS)
    models: tuple[Model, ...] = tuple(LABELS)
    objective: Objective = "sticking_the_landing"
    num_layers: int = 4
    hidden: tuple[int, ...] = (64, 64)
    num_samples: int = 128
    max_epochs: int = 25
    learning_rate: float = 3e-3
    gaussian_learning_rate: float = 3e-2
    test_samples: int = 20_000
    """Samples of each flow and of each reference, for the table."""
    seed: int = 0
    out: Path = Path(__file__).parent / "results"


class Fit(NamedTuple):
    """The samples and scores of one fitted flow."""

    samples: np.ndarray
    score: dict[str, Any]


def build(model: str, dim: int, config: Config) -> afflow.Flow:
    """Return the flow to start from."""
    if model == "gaussian":
        return afflow.Flow(afflow.Normal(dim), afflow.Elementwise(afflow.Affine(), dim))
    factory = {"maf": afflow.maf, "iaf": afflow.iaf}[model]
    options = {"num_layers": config.num_layers, "hidden": config.hidden}
    return factory(dim, **options, rngs=nnx.Rngs(config.seed))


def fit(model: str, posterior: Posterior, label: str, config: Config) -> Fit:
    """Fit one flow to one posterior; return its samples and scores."""
    flow = build(model, posterior.reference.shape[1], config)
    rate = config.gaussian_learning_rate if model == "gaussian" else config.learning_rate
    start = time.perf_counter()
    flow, _ = afflow.fit_to_density(
        flow,
        posterior.log_density,
        key=jax.random.key(config.seed),
        objective=OBJECTIVES[config.objective],
        num_samples=config.num_samples,
        max_epochs=config.max_epochs,
        learning_rate=rate,
        label=label,
    )
    seconds = time.perf_counter() - start
    options = {"key": jax.random.key(config.seed + 1), "num_samples": config.test_samples}
    x, log_w = afflow.importance_weights(flow, posterior.log_density, **options)
    there = np.asarray(posterior.reference, np.float32)
    log_w_there = jax.vmap(posterior.log_density)(there) - flow.log_prob(there)
    return Fit(np.asarray(x), score(log_w, log_w_there) | {"seconds": round(seconds, 1)})


def score(log_w: jax.Array, log_w_there: jax.Array) -> dict[str, Any]:
    """Return lower and upper bounds on the evidence, the sample size and the tail index.

    The lower bounds use samples of the flow, the upper bound uses reference samples.
    """
    estimates = {
        "elbo": afflow.inference.elbo(log_w),
        "log_evidence": afflow.inference.log_evidence(log_w),
        "upper_bound": afflow.inference.elbo(log_w_there),
    }
    return {name: [float(e.value), float(e.standard_error)] for name, e in estimates.items()} | {
        "effective_sample_fraction": float(afflow.inference.effective_sample_size(log_w))
        / len(log_w),
        "pareto_k": float(afflow.inference.pareto_k(log_w)),
    }


def draw(rows: dict[str, tuple[Posterior, dict[str, Fit]]], path: Path) -> None:
    """Draw a row for each posterior: samples of each flow over the reference, then marginals."""
    num_columns = 1 + max(len(fits) for _, fits in rows.values())
    size = (2.5 * num_columns, 2.4 * len(rows) + 0.3)
    figure, grid = plt.subplots(
        len(rows), num_columns, figsize=size, squeeze=False, layout="constrained"
    )
    for axes, (name, (posterior, fits)) in zip(grid, rows.items(), strict=True):
        box = np.quantile(posterior.reference[:, posterior.pair], [0.005, 0.995], axis=0).T
        box += np.array([-0.15, 0.15]) * np.diff(box)
        for ax, (model, fitted) in zip(axes, fits.items(), strict=False):
            title = f"{LABELS[model]}\n" if ax in grid[0] else ""
            scatter(ax, posterior, fitted, title, box)
        axes[0].set_ylabel(f"{name.replace('_', ' ')}\n{posterior.labels[1]}")
        marginals(axes[-1], posterior, fits, box[1])
    grid[0, -1].set_title("marginals", fontsize=9)
    grid[min(1, len(grid) - 1), -1].legend(loc="upper right", frameon=False, fontsize=7)
    figure.savefig(path, dpi=140)


def scatter(ax: plt.Axes, posterior: Posterior, fitted: Fit, title: str, box: np.ndarray) -> None:
    """Draw samples of a flow, in colour, over reference samples, in grey."""
    options: dict[str, Any] = {"linewidths": 0, "rasterized": True}
    pair = list(posterior.pair)
    ax.scatter(*posterior.reference[:4000, pair].T, s=6, color="0.75", **options)
    ax.scatter(*fitted.samples[:4000, pair].T, s=2, color="#c1272d", alpha=0.6, **options)
    ax.set(xlim=box[0], ylim=box[1], xlabel=posterior.labels[0])
    (value, error), k = fitted.score["elbo"], fitted.score["pareto_k"]
    ax.set_title(f"{title}ELBO {value:.3f} $\\pm$ {error:.3f}, $k$ = {k:.2f}", fontsize=8)


def marginals(ax: plt.Axes, posterior: Posterior, fits: dict[str, Fit], span: np.ndarray) -> None:
    """Draw the marginal of the second coordinate: the reference filled, the flows as lines."""
    j = posterior.pair[1]
    options: dict[str, Any] = {"bins": 60, "range": tuple(span), "density": True}
    ax.hist(posterior.reference[:, j], color="0.75", label="reference", **options)
    for model, fitted in fits.items():
        x = fitted.samples[:, j]
        ax.hist(x, histtype="step", color=COLORS[model], label=LABELS[model], **options)
    ax.set(xlabel=posterior.labels[1], yticks=[])


def main(config: Config) -> None:
    """Fit every model to every posterior, then write the picture and the scores."""
    rows, results = {}, {}
    for name in config.posteriors:
        posterior = POSTERIORS[name](config.test_samples)
        truth = {"log_evidence": posterior.log_z, "r_hat": posterior.r_hat}
        fits = {model: fit(model, posterior, f"{name} {model}", config) for model in config.models}
        rows[name] = posterior, fits
        results[name] = {"reference": truth} | {model: fits[model].score for model in fits}
        print(name, truth)
        for model in fits:
            print(f"  {model:9}", fits[model].score)
    suffix = "" if config.objective == Config.objective else f"_{config.objective}"
    path = config.out / f"variational_inference{suffix}"
    save(path.with_suffix(".json"), config, results)
    draw(rows, path.with_suffix(".png"))
    print(f"Written: {path.name}.json and .png in {config.out.name}/")


if __name__ == "__main__":
    main(tyro.cli(Config))
