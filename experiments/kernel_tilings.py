"""Tilings of the GPU kernel of sampling: events in a tile, units in a block, warps.

    python experiments/kernel_tilings.py             # on a GPU; three seconds per tiling
    python experiments/kernel_tilings.py --small     # a rehearsal by interpretation

Each tiling draws samples of an affine MAF. A tiling that fails, for example for lack of shared
memory, is recorded as failed and does not end the run. Results are written after each tiling.
"""

import re
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from flax import nnx
from measuring.report import save, summary
from tqdm import tqdm

import afflow


@dataclass(frozen=True)
class Config:
    """One flow, sampled with many tilings."""

    small: bool = False
    """Rehearse with a tiny flow."""
    sizes: tuple[tuple[int, int, int], ...] = ((43, 512, 1000), (43, 512, 16384), (784, 1024, 100))
    """Dimension, width of the two hidden layers, and batch."""
    events: tuple[int, ...] = (16, 32)
    """Events in a tile."""
    units: tuple[int, ...] = (32, 64, 128)
    """Units in a block."""
    warps: tuple[int, ...] = (4, 8)
    """Warps of a program."""
    num_layers: int = 5
    """Number of autoregressive layers."""
    repeats: int = 15
    """Timed calls, each finished before the next starts."""
    seed: int = 0
    """Seed of the weights and the samples."""
    out: Path = Path(__file__).parent / "results" / "accelerator"
    """Where to write the JSON, named after the device."""


def build(dim: int, width: int, tiling: tuple[int, int, int], config: Config) -> afflow.Flow:
    """Return a flow that samples with this tiling, with weights moved off the identity."""
    flow = afflow.maf(
        dim,
        num_layers=config.num_layers,
        hidden=(width, width),
        activation=jax.nn.relu,
        mix=lambda dim, rngs: afflow.Reverse(dim),
        solver=afflow.Incremental(kernel=tiling),
        rngs=nnx.Rngs(config.seed),
    )
    rng = np.random.default_rng(config.seed)
    return jax.tree.map(lambda a: a + rng.normal(0, 0.01, a.shape).astype(a.dtype), flow)


def measure(flow: afflow.Flow, batch: int, config: Config) -> dict[str, Any]:
    """Time samples with their log-densities, and compare these with the density pass."""
    times, key = [], jax.random.key(config.seed)
    for _ in range(config.repeats + 1):
        start = time.perf_counter()
        x, log_prob = jax.block_until_ready(flow.sample_and_log_prob(key, batch))
        times.append(time.perf_counter() - start)
    error = float(abs(flow.log_prob(x) - log_prob).max())
    return summary(np.array(times[1:])) | {"first_call_s": times[0], "log_prob_error": error}


def main(config: Config) -> None:
    """Run the experiment."""
    sizes = ((6, 32, 20),) if config.small else config.sizes
    kind = re.sub("[^a-z0-9]+", "_", jax.devices()[0].device_kind.lower())
    tilings, rows = list(product(config.events, config.units, config.warps)), []
    for (dim, width, batch), tiling in tqdm(list(product(sizes, tilings)), unit="tiling"):
        names = "dim", "width", "batch", "events", "units", "warps"
        row = dict(zip(names, (dim, width, batch, *tiling), strict=True))
        try:
            row |= measure(build(dim, width, tiling, config), batch, config)
        except jax.errors.JaxRuntimeError as error:
            row["failed"] = str(error).partition("\n")[0]
        rows.append(row)
        tqdm.write(str(row))
        save(config.out / f"{kind}_tilings.json", config, rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
