"""One masked autoregressive flow in five libraries: times of density, samples and training.

    python experiments/compare_libraries.py         # everything, on the CPU
    python experiments/compare_libraries.py --libraries afflow zuko --dims 2 6 --repeats 3
    python experiments/compare_libraries.py --libraries afflow --before CHECKOUT

The flow has a standard normal base and affine autoregressive layers in alternating order. Each
layer is a MADE with two hidden layers of relu units. `peers/` builds the flow as each library
documents it, and lists the differences. Libraries that are not installed are skipped. Each library
runs in a separate process with the same number of threads. The libraries take turns, A B C A B C
..., a few calls at a time. Only one library computes at any moment.

An epoch of afflow is a whole call of `afflow.fit`. For the others, it is a loop over their
training step, as in their own examples, without the time to shuffle. The experiment needs an idle
machine, and `OMP_WAIT_POLICY=passive`, which it sets by default. Without this policy PyTorch's
threads spin between calls, and the other libraries take up to twice as long.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from measuring.report import save, summary
from peers import EPOCH, LIBRARIES, Sizes
from peers.peer import Peer
from tqdm import tqdm

CALLS = {
    "score": "Scoring a batch",
    "sample": "Sampling a batch",
    "train": "A training step",
    "fit": f"An epoch of {EPOCH} steps",
}
BEFORE = "before"  # the name of an earlier afflow
COLORS = {
    "afflow": "k",
    BEFORE: "C5",
    "flowjax": "C1",
    "numpyro": "C2",
    "zuko": "C0",
    "nflows": "C3",
}
Name = tyro.extras.literal_type_from_choices(LIBRARIES)


@dataclass(frozen=True)
class Scale:
    """Sizes of the flows over a range of dimensions."""

    num_layers: int
    """Number of autoregressive layers."""
    width: int
    """Units in each of the two hidden layers."""
    batch: int
    """Events per call that are scored, drawn or trained on."""

    def __str__(self) -> str:
        return f"{self.num_layers} layers of 2x{self.width}, batch {self.batch}"


@dataclass(frozen=True)
class Config:
    """The same flow in several libraries, timed in turn."""

    libraries: tuple[Name, ...] = tuple(LIBRARIES)
    """The libraries to compare; those that are not installed are skipped."""
    dims: tuple[int, ...] = (2, 6, 16, 43, 64, 256, 784)
    """Dimensions to time, each at least 2."""
    small: Scale = Scale(num_layers=5, width=512, batch=1000)
    """Sizes below `large_from` dimensions."""
    large: Scale = Scale(num_layers=2, width=1024, batch=100)
    """Sizes from `large_from` dimensions on."""
    large_from: int = 256
    """The dimension from which `large` applies."""
    repeats: int = 25
    """Timed calls of each function; the first call is reported separately."""
    turn: int = 5
    """Calls in a row before the next library has its turn."""
    seconds: float = 20.0
    """Seconds to time one function at one dimension; at least one call is timed."""
    threads: int = 2
    """Cores of each worker process, and threads of PyTorch in the process."""
    seed: int = 0
    """Seed of the data, the initial weights and the samples."""
    before: Path | None = None
    """A checkout of an earlier afflow, which is timed in the same run."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON and the picture."""

    @property
    def name(self) -> str:
        """The name of the files, without a suffix."""
        return "compare_libraries" if self.before is None else "compare_before"


def next_turn(times: list[float], config: Config) -> int:
    """Return the number of calls in the next turn.

    The first call stands alone. The second gives a time to plan by. Then follow turns of several
    calls, until the time is over.
    """
    if len(times) < 2:
        return 1
    affordable = (config.seconds - sum(times[1:])) // np.median(times[1:])
    return max(0, int(min(config.turn, config.repeats - len(times) + 1, affordable)))


def measure(peers: dict[str, Peer], call: str, config: Config) -> dict[str, dict]:
    """Time one function in every library that has it, in turn."""
    times = {name: [] for name in peers}
    while turns := {name: n for name in times if (n := next_turn(times[name], config))}:
        for name, n in turns.items():
            reply = peers[name].ask("run", call, n)
            if reply is None:
                del times[name]
            else:
                times[name] += reply
    return {
        name: summary(np.array(seconds[1:]))
        | {"min_ms": 1e3 * min(seconds[1:]), "first_call_s": seconds[0]}
        for name, seconds in times.items()
    }


def best_peer(row: dict[str, dict]) -> tuple[str, float] | None:
    """Return the fastest peer and the ratio of its time to afflow's, if both were timed."""
    medians = {name: cell["median_ms"] for name, cell in row.items() if name != BEFORE}
    ours = medians.pop("afflow", None)
    best = min(medians, key=medians.get, default=None)
    return (best, medians[best] / ours) if best and ours else None


def time_dim(peers: dict[str, Peer], dim: int, config: Config) -> dict[str, Any]:
    """Build the flow in every library and time its functions."""
    scale = config.small if dim < config.large_from else config.large
    sizes = Sizes(dim, scale.num_layers, scale.width, scale.batch, config.seed)
    num_params = {name: peer.ask("build", *sizes) for name, peer in peers.items()}
    built = {name: peers[name] for name, count in num_params.items() if count is not None}
    timing = {call: measure(built, call, config) for call in CALLS}
    return timing | {
        "best_peer_over_afflow": {call: best_peer(row) for call, row in timing.items()},
        "sizes": sizes._asdict(),
        "num_params": num_params,
        "finite": {name: peer.ask("finite") for name, peer in built.items()},
        "peak_mib_so_far": {name: peer.ask("peak_mib") for name, peer in built.items()},
    }


def print_table(results: dict[int, dict], call: str, key: str, title: str) -> None:
    """Print a line per dimension and a column per library."""
    names = (*LIBRARIES, BEFORE)
    names = [name for name in names if any(name in row[call] for row in results.values())]
    print(f"\n{title}:\n{'D':>5}" + "".join(f"{name:>16}" for name in names), end="")
    print("   best peer / afflow" if key == "median_ms" else "")
    for dim, row in results.items():
        cells = (f"{row[call][n][key]:16.2f}" if n in row[call] else f"{'-':>16}" for n in names)
        best = row["best_peer_over_afflow"][call] if key == "median_ms" else None
        print(f"{dim:5}" + "".join(cells) + standing(best))


def standing(best: tuple[str, float] | None) -> str:
    """Return a text with the ratio of the best peer to afflow, and the name of that peer."""
    return f"{best[1]:9.2f} {best[0]}{' IS FASTER' if best[1] < 1 else ''}" if best else ""


def draw_library(axis: plt.Axes, cells: dict[int, dict], name: str, large_from: int) -> None:
    """Plot the medians of one library with shaded quartiles, and one line for each scale."""
    color, style = COLORS[name.split("-")[0]], "s--" if "-" in name else "o-"
    axis.plot([], [], style, ms=4, mfc="w" if "-" in name else color, color=color, label=name)
    for small in (True, False):
        dims = [dim for dim in cells if (dim < large_from) == small]
        keys = "q25_ms", "median_ms", "q75_ms"
        low, middle, high = ([cells[dim][key] for dim in dims] for key in keys)
        axis.plot(dims, middle, style, ms=4, mfc="w" if "-" in name else color, color=color)
        axis.fill_between(dims, low, high, color=color, alpha=0.15, lw=0)


def draw(results: dict[int, dict], config: Config) -> None:
    """Plot the times against the dimension, both axes logarithmic."""
    figure, axes = plt.subplots(1, 4, figsize=(17, 4.8), layout="constrained")
    for axis, (call, title) in zip(axes, CALLS.items(), strict=True):
        for name in (*LIBRARIES, BEFORE):
            cells = {dim: row[call][name] for dim, row in results.items() if name in row[call]}
            if cells:
                draw_library(axis, cells, name, config.large_from)
        axis.set(xscale="log", yscale="log", xlabel="dimension $D$", title=title)
        axis.set_xticks(list(results), [str(dim) for dim in results])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("milliseconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    figure.suptitle(f"{config.small}; {config.large} from $D={config.large_from}$")
    figure.savefig(config.out / f"{config.name}.png", dpi=150)


def main(config: Config) -> None:
    """Run the experiment; the results are written after every dimension."""
    jax.config.update("jax_platforms", "cpu")
    load, policy = os.getloadavg()[0], os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    content = {"load_before": load, "omp_wait_policy": policy, "libraries": {}, "timing": {}}
    if load > 0.5:
        print(f"This machine is busy, load average {load:.1f}: expect PyTorch to suffer most.")
    peers = {name: Peer(name, config.threads) for name in config.libraries}
    if config.before is not None:
        peers[BEFORE] = Peer("afflow", config.threads, config.before)
    for name, peer in peers.items():
        about = {"architecture": LIBRARIES[peer.library].architecture, "errors": peer.errors}
        content["libraries"][name] = about | (peer.ask("hello") or {})
    working = {name: peer for name, peer in peers.items() if not peer.errors}
    for dim in tqdm(sorted(config.dims), desc="timing", unit="dimension"):
        content["timing"][dim] = time_dim(working, dim, config)
        save(config.out / f"{config.name}.json", config, content)
    for peer in peers.values():
        peer.process.communicate()
    for key, what in {"median_ms": "median milliseconds", "first_call_s": "first call, s"}.items():
        for call, title in CALLS.items():
            print_table(content["timing"], call, key, f"{title}, {what}")
    draw(content["timing"], config)
    print(f"\nWritten: {config.name}.json and .png in {config.out.name}/")


if __name__ == "__main__":
    main(tyro.cli(Config))
