"""What `fit` adds to the training step: epochs of it against a bare scan of the same steps.

python experiments/fit_throughput.py        # a minute or two on two cores
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
import optax
import tyro
from flax import nnx
from report import interleave, save, summary

import afflow


@dataclass(frozen=True)
class Config:
    """Time `fit` against a bare scan, with sizes of the POWER data."""

    rows: int = 100_000
    """Rows of data."""
    dim: int = 6
    """Dimension of the events."""
    num_layers: int = 5
    """Autoregressive layers of the MAF."""
    hidden: tuple[int, ...] = (100, 100)
    """Hidden widths."""
    batch_size: int = 512
    """Rows in a minibatch."""
    epochs: int = 2
    """Epochs in one timed call."""
    repeats: int = 15
    """Timed calls of each, in turn."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


OPTIMIZER = optax.adam(1e-3)


@partial(jax.jit, static_argnums=0)
def bare(graph, params, state, x, batches):
    """Take the steps over stacked row numbers, and nothing else."""

    def step(carry, rows):
        params, state = carry
        grads = jax.grad(lambda params: -nnx.merge(graph, params).log_prob(x[rows]).mean())(params)
        updates, state = OPTIMIZER.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, state), batches)[0]


def main(config: Config) -> None:
    """Run the experiment."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(config.rows, config.dim)).astype(np.float32)
    sizes = {"num_layers": config.num_layers, "hidden": config.hidden}
    flow = afflow.maf(config.dim, **sizes, rngs=nnx.Rngs(0))
    graph, params = nnx.split(flow, nnx.Param)
    steps = config.rows // config.batch_size
    on_device, state = jax.device_put(x), OPTIMIZER.init(params)
    order = rng.permutation(config.rows)[: steps * config.batch_size].reshape(steps, -1)

    def run_bare():
        carry = params, state
        for _ in range(config.epochs):
            carry = bare(graph, *carry, on_device, order)
        return carry

    def run_fit(**options):
        options |= {"batch_size": config.batch_size, "max_epochs": config.epochs}
        key, more = jax.random.key(0), {"optimizer": OPTIMIZER, "progress": False}
        return afflow.fit(flow, x, key=key, validation=0, **options, **more)[0]

    runs = {"bare": run_bare, "fit": run_fit, "fit with ema": lambda: run_fit(ema=0.999)}
    for run in runs.values():
        jax.block_until_ready(run())
    times = interleave(runs, config.repeats, seconds=300.0)
    results: dict = {name: summary(values) for name, values in times.items()}
    for name in ("fit", "fit with ema"):
        results[f"throughput of {name} over bare"] = float(np.median(times["bare"] / times[name]))
        print(name, round(results[f"throughput of {name} over bare"], 3))
    save(config.out / "fit_throughput.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
