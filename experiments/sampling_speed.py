"""MAF against IAF: fit a flow to real images, then time both directions of both flows.

    python experiments/sampling_speed.py            # everything, under ten minutes on two cores
    python experiments/sampling_speed.py --help

A MAF scores in one pass and samples serially. An IAF is the inverse of a MAF: it samples in one
pass and scores serially. The serial direction is timed with each solver, in units of one density
pass.
"""

from collections.abc import Iterator
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
from measuring.gradients import KINDS, print_gradients, stack, time_gradients
from measuring.report import compile_seconds, interleave, save, summary
from recipes.digits import fit_digits
from tqdm import tqdm

import afflow

SOLVERS = {
    "incremental": afflow.Incremental(),
    "jacobi": afflow.Jacobi(),
    "sequential": afflow.FullPasses(),
}
STYLES = {"incremental": "-", "jacobi": ":", "sequential": "--"}
REFERENCE = {"dims": (43, 64), "num_layers": 5, "hidden": (512, 512), "batch": 1000}


@dataclass(frozen=True)
class Config:
    """MAF against IAF on handwritten digits and on a clock."""

    dims: tuple[int, ...] = (2, 8, 16, 32, 64, 128, 256, 784)
    """Dimensions to time."""
    num_layers: int = 5
    """Autoregressive layers of the timed flows."""
    hidden: tuple[int, ...] = (256, 256)
    """Hidden widths of the timed flows."""
    batch: int = 100
    """Events scored or drawn in one timed call."""
    repeats: int = 15
    """Timed calls of each function; slow functions make fewer calls, but at least two."""
    seconds: float = 4.0
    """Seconds to time one function at one dimension."""
    dtype: str = "float32"
    """Float type of the timed flows: float32 or float64."""
    epochs: int = 25
    """Epochs of the fit to digits; 0 skips it."""
    reference: bool = True
    """Also time D=43 and 64, 5 layers of 2x512, batch 1000, and gradients through sampling."""
    seed: int = 0
    """Seed of the data split, the initial weights, training and sampling."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON and the pictures."""


def flows(dim: int, num_layers: int, hidden, dtype, seed: int) -> Iterator:
    """Yield kind, solver and a flow with random weights, for MAF and IAF with each solver."""
    for kind, make in (("MAF", afflow.maf), ("IAF", afflow.iaf)):
        for solver, choice in SOLVERS.items():
            flow = make(
                dim, num_layers=num_layers, hidden=hidden, solver=choice, rngs=nnx.Rngs(seed)
            )
            yield kind, solver, randomize(flow, dtype, seed)


def randomize(module, dtype, seed: int):
    """Return the module with weights moved off their start at the identity, cast to `dtype`."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(a + rng.normal(0, 0.01, a.shape), dtype), module)


def time_flows(config: Config, dim: int, num_layers: int, hidden, batch: int) -> dict:
    """Time scoring and sampling at one dimension, in milliseconds and in density passes."""
    dtype = jnp.dtype(config.dtype)
    x = jax.random.normal(jax.random.key(config.seed), (batch, dim), dtype)
    key = jax.random.key(config.seed)
    runs = {}
    for kind, solver, flow in flows(dim, num_layers, hidden, dtype, config.seed):
        serial, parallel = ("sample", "score") if kind == "MAF" else ("score", "sample")
        call = {
            "score": lambda flow=flow: flow.log_prob(x),
            "sample": lambda flow=flow: flow.sample(key, batch),
        }
        runs[f"{kind} {parallel}"] = call[parallel]
        runs[f"{kind} {serial}, {solver}"] = call[serial]
    compiling = {name: compile_seconds(run) for name, run in runs.items()}
    times = interleave(runs, config.repeats, config.seconds)
    unit = np.median(times["MAF score"])
    return {
        name: summary(times[name])
        | {"passes": np.median(times[name]) / unit, "first_call_s": compiling[name]}
        for name in sorted(runs)
    }


def reference_gradients(config: Config) -> dict[int, dict]:
    """Time gradients through one layer of the reference flow, and through all layers."""
    (dim, *_), num_layers, hidden, batch = REFERENCE.values()
    z = jax.random.normal(jax.random.key(config.seed), (batch, dim)).astype(config.dtype)
    results = {}
    for n in (1, num_layers):
        stacks = {kind: stack(kind, dim, hidden, n, config.seed) for kind in KINDS}
        moved = {kind: randomize(layers, z.dtype, config.seed) for kind, layers in stacks.items()}
        results[n] = time_gradients(moved, z, config.repeats)
    return results


def print_table(results: dict[int, dict], batch: int) -> None:
    """Print a line per dimension: the density pass in milliseconds, the rest in density passes."""
    names = [name for name in next(iter(results.values())) if name != "MAF score"]
    heads = [name.replace("incremental", "incr.").replace("sequential", "seq.") for name in names]
    print(f"\nTime of a batch of {batch}, in density passes of the MAF:")
    print(f"{'D':>5}{'one pass':>12}" + "".join(f"{head:>19}" for head in heads))
    for dim, row in results.items():
        cells = "".join(f"{row[name]['passes']:19.2f}" for name in names)
        print(f"{dim:5}{row['MAF score']['median_ms']:9.2f} ms" + cells)


def draw_times(config: Config, results: dict[int, dict]) -> None:
    """Plot the times against the dimension, both axes logarithmic."""
    colors = {"MAF": "tab:blue", "IAF": "tab:orange"}
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, action in zip(axes, ("score", "sample"), strict=True):
        for name in next(iter(results.values())):
            kind, rest = name.split(" ", 1)
            if not rest.startswith(action):
                continue
            rows = [row[name] for row in results.values()]
            low, median, high = (
                [row[q] for row in rows] for q in ("q25_ms", "median_ms", "q75_ms")
            )
            solver = rest.partition(", ")[2]
            style = {"color": colors[kind], "linestyle": STYLES.get(solver, "-"), "marker": "o"}
            axis.plot(list(results), median, ms=4, label=f"{kind}: {solver or 'one pass'}", **style)
            axis.fill_between(list(results), low, high, color=colors[kind], alpha=0.2)
        axis.set(xscale="log", yscale="log", xlabel="dimension $D$", title=action)
        axis.set_xticks(list(results), [str(dim) for dim in results])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=9)
    axes[0].set_ylabel(f"milliseconds for a batch of {config.batch}")
    figure.savefig(config.out / "sampling_speed.png", dpi=150)


def main(config: Config) -> None:
    """Run the experiment and write its results."""
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    config.out.mkdir(parents=True, exist_ok=True)
    results: dict = (
        {"digits": fit_digits(config.seed, config.epochs, config.out)} if config.epochs else {}
    )
    shape = config.num_layers, config.hidden, config.batch
    dims = tqdm(sorted(config.dims), desc="timing", unit="dimension")
    curve = {dim: time_flows(config, dim, *shape) for dim in dims}
    print_table(curve, config.batch)
    draw_times(config, curve)
    results["timing"] = curve
    if config.reference:
        dims, *shape = REFERENCE.values()
        reference = {dim: time_flows(config, dim, *shape) for dim in dims}
        print_table(reference, REFERENCE["batch"])
        gradients = reference_gradients(config)
        print_gradients(gradients)
        results["reference"] = REFERENCE | {"timing": reference, "gradients": gradients}
    save(config.out / "sampling_speed.json", config, results)
    print(f"\nWritten: sampling_speed.json, .png and _digits.png in {config.out.name}/")


if __name__ == "__main__":
    main(tyro.cli(Config))
