"""Compile time of a training step against depth: `Repeat` compiles one layer, `Chain` all.

python experiments/compile_time.py # a few minutes on two cores
"""

import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from flax import nnx
from measuring.report import save, summary
from tqdm import tqdm

import afflow


@dataclass(frozen=True)
class Config:
    """Compile a training step of MAFs of many depths."""

    depths: tuple[int, ...] = (2, 4, 8, 16, 32)
    """Numbers of autoregressive layers."""
    dim: int = 43
    """Dimension of the data."""
    hidden: tuple[int, ...] = (512, 512)
    """Hidden widths."""
    batch: int = 1000
    """Rows in a minibatch."""
    repeats: int = 5
    """Compilations of each flow, in turn."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON and the picture."""


def stack(kind: str, depth: int, config: Config) -> afflow.Flow:
    """Return a MAF of `depth` layers in a `Repeat` or a `Chain`."""

    def layer(rngs):
        made = afflow.MADE(config.dim, 2, config.hidden, rngs=rngs)
        inner = afflow.MaskedAutoregressive(made, afflow.Affine())
        return afflow.Chain([afflow.Reverse(config.dim), inner])

    rngs = nnx.Rngs(0)
    if kind == "Repeat":
        return afflow.Flow(afflow.Normal(config.dim), afflow.Repeat(layer, depth, rngs=rngs))
    layers = afflow.Chain([layer(rngs) for _ in range(depth)])
    return afflow.Flow(afflow.Normal(config.dim), layers)


def compile_step(flow: afflow.Flow, config: Config) -> float:
    """Return the seconds to trace and compile one training step."""
    graph, params, rest = nnx.split(flow, nnx.Param, ...)
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(1e-3))

    def step(params, state, x):
        loss, grads = jax.value_and_grad(
            lambda params: -nnx.merge(graph, params, rest).log_prob(x).mean()
        )(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    jax.clear_caches()
    start = time.perf_counter()
    x = jax.ShapeDtypeStruct((config.batch, config.dim), jnp.float32)
    jax.jit(step).lower(params, jax.eval_shape(optimizer.init, params), x).compile()
    return time.perf_counter() - start


def main(config: Config) -> None:
    """Run the experiment."""
    cells = [(kind, depth) for depth in config.depths for kind in ("Repeat", "Chain")]
    times: dict[tuple, list[float]] = {cell: [] for cell in cells}
    for _ in tqdm(range(config.repeats), desc="compiling", unit="round"):
        for cell in cells:
            times[cell].append(compile_step(stack(*cell, config), config))
    results = {
        kind: {depth: summary(np.array(times[kind, depth])) for depth in config.depths}
        for kind in ("Repeat", "Chain")
    }
    for kind, row in results.items():
        seconds = "".join(f"{cell['median_ms'] / 1e3:9.2f}" for cell in row.values())
        print(f"{kind:8}{seconds} s   at {config.depths} layers")
    deepest, shallowest = max(config.depths), min(config.depths)
    ratio = results["Repeat"][deepest]["median_ms"] / results["Repeat"][shallowest]["median_ms"]
    print(f"Repeat, {deepest} layers against {shallowest}: {ratio:.2f} x")
    save(config.out / "compile_time.json", config, results | {"deepest_over_shallowest": ratio})
    draw(results, config)


def draw(results: dict, config: Config) -> None:
    """Plot the seconds against the depth."""
    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for kind, row in results.items():
        axis.plot(list(row), [cell["median_ms"] / 1e3 for cell in row.values()], "o-", label=kind)
    axis.set(xscale="log", yscale="log", xlabel="layers", ylabel="seconds to compile a step")
    axis.set_xticks(config.depths, [str(depth) for depth in config.depths])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(config.out / "compile_time.png", dpi=150)


if __name__ == "__main__":
    main(tyro.cli(Config))
