"""The cost of a spline against an affine map: density, samples and gradient of one MAF.

python experiments/spline_cost.py # a minute on two cores
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from flax import nnx
from measuring.report import interleave, save, summary

import afflow


@dataclass(frozen=True)
class Config:
    """Time `nsf` against `maf`."""

    dim: int = 43
    """Dimension of the events."""
    num_layers: int = 5
    """Number of autoregressive layers."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths."""
    num_bins: int = 8
    """Bins of each spline."""
    batch: int = 1000
    """Events in one call."""
    repeats: int = 25
    """Timed calls of each function, in turn."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


def main(config: Config) -> None:
    """Run the experiment."""
    sizes = {"num_layers": config.num_layers, "hidden": config.hidden}
    sizes |= {"activation": jax.nn.relu, "mix": lambda dim, rngs: afflow.Reverse(dim)}
    flows = {
        "affine": afflow.maf(config.dim, **sizes, rngs=nnx.Rngs(0)),
        "spline": afflow.nsf(config.dim, **sizes, num_bins=config.num_bins, rngs=nnx.Rngs(0)),
    }
    key = jax.random.key(0)
    x = jax.random.normal(key, (config.batch, config.dim))
    gradient = jax.jit(jax.grad(lambda flow: flow.log_prob(x).mean()))
    runs = {}
    for name, flow in flows.items():
        runs[f"{name} pass"] = lambda flow=flow: flow.log_prob(x)
        runs[f"{name} sample"] = lambda flow=flow: flow.sample(key, config.batch)
        runs[f"{name} gradient"] = lambda flow=flow: gradient(flow)
    for run in runs.values():
        jax.block_until_ready(run())
    times = interleave(runs, config.repeats, seconds=60.0)
    results: dict = {name: summary(values) for name, values in times.items()}
    for what in ("pass", "sample", "gradient"):
        ratio = np.median(times[f"spline {what}"]) / np.median(times[f"affine {what}"])
        results[f"spline over affine, {what}"] = ratio
        milliseconds = [results[f"{name} {what}"]["median_ms"] for name in flows]
        print(
            f"{what:10} affine {milliseconds[0]:8.2f} ms   spline {milliseconds[1]:8.2f} ms", end=""
        )
        print(f"   ratio {ratio:5.2f}")
    save(config.out / "spline_cost.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
