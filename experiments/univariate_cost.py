"""The cost of a univariate against an affine map: density, samples and gradient of one MAF.

    python experiments/univariate_cost.py  # three minutes on two cores

The weights are random. With the weights of the start every map would be close to the identity, and
the search for the root of a mixture would be short.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from flax import nnx
from measuring.report import interleave, save, summary

import afflow
from afflow.univariates import GaussianCDF, LogisticCDF, MixtureCDF


@dataclass(frozen=True)
class Config:
    """Time MAFs that differ in their univariate."""

    dim: int = 43
    """Dimension of the events."""
    num_layers: int = 5
    """Number of autoregressive layers."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths."""
    num_bins: int = 8
    """Bins of each spline."""
    num_components: int = 5
    """Components of each mixture."""
    noise: float = 0.03
    """The standard deviation of what is added to each parameter."""
    batch: int = 1000
    """Events in one call."""
    repeats: int = 25
    """Timed calls of each function, in turn."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


def make_univariates(config: Config) -> dict[str, Callable[[], afflow.Bijector]]:
    """Return what makes each univariate, by name; the affine one is first."""
    return {
        "affine": afflow.Affine,
        "spline": partial(afflow.RationalQuadraticSpline, config.num_bins),
        "mixture of logistics": partial(MixtureCDF, config.num_components, LogisticCDF()),
        "mixture of normals": partial(MixtureCDF, config.num_components, GaussianCDF()),
    }


def build(config: Config, univariate: Callable[[], afflow.Bijector]) -> afflow.Flow:
    """Return a MAF with random weights."""
    flow = afflow.maf(
        config.dim,
        num_layers=config.num_layers,
        hidden=config.hidden,
        activation=jax.nn.relu,
        univariate=univariate,
        mix=lambda dim, rngs: afflow.Reverse(dim),
        rngs=nnx.Rngs(0),
    )
    graph, params, rest = nnx.split(flow, nnx.Param, ...)
    random = optax.tree.random_like(jax.random.key(0), params)
    params = optax.tree.add_scale(params, config.noise, random)
    return nnx.merge(graph, params, rest)


def main(config: Config) -> None:
    """Run the experiment."""
    key = jax.random.key(0)
    gradient = jax.jit(jax.grad(lambda flow, x: flow.log_prob(x).mean()))
    univariates, runs = make_univariates(config), {}
    for name, univariate in univariates.items():
        flow = build(config, univariate)
        x = flow.sample(jax.random.key(1), config.batch)
        runs[f"{name}, pass"] = lambda flow=flow, x=x: flow.log_prob(x)
        runs[f"{name}, sample"] = lambda flow=flow: flow.sample(key, config.batch)
        runs[f"{name}, gradient"] = lambda flow=flow, x=x: gradient(flow, x)
    for run in runs.values():
        jax.block_until_ready(run())
    times = interleave(runs, config.repeats, seconds=60.0)
    results: dict = {name: summary(values) for name, values in times.items()}
    for name in univariates:
        for what in ("pass", "sample", "gradient"):
            ratio = np.median(times[f"{name}, {what}"]) / np.median(times[f"affine, {what}"])
            results[f"{name} over affine, {what}"] = ratio
            milliseconds = results[f"{name}, {what}"]["median_ms"]
            print(f"{name:22} {what:10} {milliseconds:8.2f} ms   ratio {ratio:5.2f}")
    save(config.out / "univariate_cost.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
