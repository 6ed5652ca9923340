"""The throughput of `fit` as a fraction of the throughput of a bare training step.

    python experiments/fit_throughput.py --data-dir FOLDER

The flow is the MAF of the paper's POWER benchmark. One epoch of `fit` is timed against a scan of as
many bare steps over prepared minibatches.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from datasets import power
from flax import nnx
from measuring.report import Run, interleave, save, summary

import afflow


@dataclass(frozen=True)
class Config:
    """The flow, the training and the timing."""

    data_dir: Path | None = None
    rows: int = 800_000
    num_layers: int = 5
    hidden: tuple[int, ...] = (100, 100)
    batch_size: int = 256
    repeats: int = 5
    out: Path = Path(__file__).parent / "results"


@partial(jax.jit, static_argnums=(0, 1))
def bare(optimizer: optax.GradientTransformation, graph, params, rest, batches: jax.Array):
    """Take one training step on each of `batches` `(steps, batch, D)`."""

    def loss(params, x):
        return -nnx.merge(graph, params, rest).log_prob(x).mean()

    def step(carry, x):
        params, state = carry
        value, grads = jax.value_and_grad(loss)(params, x)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    return jax.lax.scan(step, (params, optimizer.init(params)), batches)


def runs(config: Config, x: np.ndarray) -> dict[str, Run]:
    """Return two functions: an epoch of `fit`, and an epoch of bare steps."""
    options = {"num_layers": config.num_layers, "hidden": config.hidden}
    options |= {"activation": jax.nn.relu, "mix": lambda dim, rngs: afflow.Reverse(dim)}
    flow = afflow.maf(x.shape[1], **options, rngs=nnx.Rngs(0))
    steps = len(x) // config.batch_size
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(1e-3))
    batches = jnp.asarray(x[: steps * config.batch_size]).reshape(steps, config.batch_size, -1)
    parts = nnx.split(flow, nnx.Param, ...)
    training = {"batch_size": config.batch_size, "max_epochs": 1, "optimizer": optimizer}
    fit = partial(afflow.fit, flow, x, key=jax.random.key(0), validation=0.0, progress=False)
    return {
        "fit": lambda: fit(**training)[1].train,
        "bare": lambda: bare(optimizer, *parts, batches),
    }


def main(config: Config) -> None:
    """Time both functions in turn, and write the ratio of their medians."""
    x = power(config.data_dir).train[: config.rows]
    functions = runs(config, x)
    for run in functions.values():
        jax.block_until_ready(run())
    times = interleave(functions, config.repeats, seconds=600)
    ratio = float(np.median(times["bare"]) / np.median(times["fit"]))
    results = {name: summary(values) for name, values in times.items()}
    print(f"fit has {ratio:.2f} of the throughput of the bare step")
    save(config.out / "fit_throughput.json", config, results | {"throughput": ratio})


if __name__ == "__main__":
    main(tyro.cli(Config))
