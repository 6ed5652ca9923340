"""MAF against IAF: fit a flow to real images, then time both directions of both flows.

    python experiments/sampling_speed.py            # everything, a few minutes on two cores
    python experiments/sampling_speed.py --help

A MAF scores in one pass and samples serially; an IAF is the same flow read backwards.
The serial direction is timed with each solver, in units of one density pass.
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
import optax
import tyro
from digits import COPIES, bits_per_dim, gaussian_log_prob, load_digits
from flax import nnx
from report import compile_seconds, interleave, save, summary
from tqdm import tqdm

import afflow

SOLVERS = {"incremental": afflow.Incremental(), "sequential": afflow.Sequential()}
REFERENCE = {"dim": 43, "num_layers": 5, "hidden": (512, 512), "batch": 1000}


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
    """Timed calls of each function; those that take long make fewer, but at least three."""
    seconds: float = 4.0
    """How long one function may be timed for at one dimension."""
    dtype: str = "float32"
    """Float type of the timed flows: float32 or float64."""
    epochs: int = 60
    """Epochs of the fit to digits; 0 skips it."""
    reference: bool = True
    """Also time D=43, 5 layers of 2x512, batch 1000."""
    seed: int = 0
    """Seed of the data split, the initial weights, training and sampling."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON and the pictures."""


def fit_digits(config: Config) -> dict:
    """Fit a MAF to dequantized 8x8 digits; return test scores beside a Gaussian's."""
    train, validation, test = load_digits(config.seed)
    flow = afflow.maf(64, hidden=(128, 128), data=train, rngs=nnx.Rngs(config.seed))
    steps = config.epochs * (len(train) // 256)
    schedule = optax.cosine_decay_schedule(3e-4, steps)
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adamw(schedule, weight_decay=3.0))
    flow, history = afflow.fit(
        flow,
        train,
        key=jax.random.key(config.seed),
        validation=validation,
        max_epochs=config.epochs,
        optimizer=optimizer,
    )
    draw_digits(config, test, flow.sample(jax.random.key(config.seed), 40))
    scores = {
        "MAF, 5 layers of 2x128": np.asarray(flow.log_prob(test)),
        "Gaussian, full covariance": gaussian_log_prob(train, test),
    }
    print(
        f"\nDigits, 64 pixels, {len(test) // COPIES} test images (best epoch {history.best_epoch}):"
    )
    print(f"  {'':28}{'nats':>18}{'bits / dim':>12}")
    results = {}
    for name, score in scores.items():
        score = score.reshape(COPIES, -1).mean(0)  # one score an image
        mean, error = score.mean(), score.std() / np.sqrt(len(score))
        results[name] = {"nats": mean, "standard_error": error, "bits": bits_per_dim(mean, 64)}
        print(f"  {name:28}{mean:10.2f} +- {error:4.2f}{bits_per_dim(mean, 64):12.3f}")
    return {"test": results, "best_epoch": history.best_epoch}


def draw_digits(config: Config, real: np.ndarray, generated: jax.Array) -> None:
    """Draw real digits beside generated ones."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for axis, title, images in zip(axes, ("real", "generated"), (real, generated), strict=True):
        tiles = np.pad(
            np.asarray(images)[:40].reshape(5, 8, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1))
        )
        axis.imshow(tiles.transpose(0, 2, 1, 3).reshape(50, 80), cmap="gray", vmin=0, vmax=17)
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(config.out / "sampling_speed_digits.png", dpi=150)


def flows(dim: int, num_layers: int, hidden, dtype, seed: int) -> Iterator:
    """Yield the label and a flow with random weights, for MAF and IAF with each solver."""
    for kind, make in (("MAF", afflow.maf), ("IAF", afflow.iaf)):
        for solver, choice in SOLVERS.items():
            flow = make(
                dim, num_layers=num_layers, hidden=hidden, solver=choice, rngs=nnx.Rngs(seed)
            )
            yield kind, solver, randomize(flow, dtype, seed)


def randomize(flow: afflow.Flow, dtype, seed: int) -> afflow.Flow:
    """Move the weights off their start at the identity, and cast them."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(a + rng.normal(0, 0.01, a.shape), dtype), flow)


def time_flows(config: Config, dim: int, num_layers: int, hidden, batch: int) -> dict:
    """Time scoring and sampling at one dimension; in milliseconds and in density passes."""
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


def print_table(results: dict[int, dict], batch: int) -> None:
    """Print a line a dimension: the pass in milliseconds, everything else in passes."""
    names = [name for name in next(iter(results.values())) if name != "MAF score"]
    print(f"\nTime of a batch of {batch}, in density passes of the MAF:")
    print(f"{'D':>5}{'one pass':>12}" + "".join(f"{name:>25}" for name in names))
    for dim, row in results.items():
        cells = "".join(f"{row[name]['passes']:25.2f}" for name in names)
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
            style = "--" if "sequential" in rest else "-"
            spread = np.array(
                [
                    [row[name][q] for q in ("q25_ms", "median_ms", "q75_ms")]
                    for row in results.values()
                ]
            )
            label = name.replace(f" {action}", "").replace(",", ":")
            axis.plot(
                list(results),
                spread[:, 1],
                style,
                marker="o",
                ms=4,
                color=colors[kind],
                label=label if ":" in label else f"{label}: one pass",
            )
            axis.fill_between(
                list(results), spread[:, 0], spread[:, 2], color=colors[kind], alpha=0.2
            )
        axis.set(xscale="log", yscale="log", xlabel="dimension $D$", title=action)
        axis.set_xticks(config.dims, [str(dim) for dim in config.dims])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(frameon=False, fontsize=9)
    axes[0].set_ylabel(f"milliseconds for a batch of {config.batch}")
    figure.savefig(config.out / "sampling_speed.png", dpi=150)


def main(config: Config) -> None:
    """Run the experiment and write its results."""
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    config.out.mkdir(parents=True, exist_ok=True)
    results: dict = {"digits": fit_digits(config)} if config.epochs else {}
    shape = config.num_layers, config.hidden, config.batch
    dims = tqdm(sorted(config.dims), desc="timing", unit="dimension")
    curve = {dim: time_flows(config, dim, *shape) for dim in dims}
    print_table(curve, config.batch)
    draw_times(config, curve)
    results["timing"] = curve
    if config.reference:
        reference = time_flows(config, *REFERENCE.values())
        print_table({REFERENCE["dim"]: reference}, REFERENCE["batch"])
        results["reference"] = REFERENCE | {"timing": reference}
    save(config.out / "sampling_speed.json", config, results)
    print(f"\nWritten: sampling_speed.json, .png and _digits.png in {config.out.name}/")


if __name__ == "__main__":
    main(tyro.cli(Config))
