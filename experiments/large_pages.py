"""What large memory pages save on a CPU under Linux, for programs with large temporaries.

    python experiments/large_pages.py  # about six minutes on two cores

Every call of a compiled program allocates its temporaries anew. The system hands out memory page by
page, at the first touch. With `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` (glibc 2.35 and later) a page
has 2 MB in place of 4 KB. Processes with and without this setting take turns.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from measuring.report import Run, compile_seconds, interleave, save

import afflow

SETTING = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
KINDS: dict[str, dict[str, str]] = {"small pages": {}, "large pages": SETTING}


@dataclass(frozen=True)
class Config:
    """Time programs in processes that take turns."""

    rounds: int = 3
    """Processes of each kind."""
    repeats: int = 7
    """Timed calls of each program in a process."""
    worker: bool = False
    """Time the programs in this process, and print the results."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


def programs() -> dict[str, Callable[[], Run]]:
    """Return functions that make the programs to time, by name."""
    key = jax.random.key(0)

    def training_step(model, x) -> Run:
        step = jax.jit(jax.value_and_grad(lambda model, x: -model.log_prob(x).mean()))
        return lambda: step(model, x)

    def flow(dim, width):
        return afflow.maf(dim, num_layers=5, hidden=(width, width), rngs=nnx.Rngs(0))

    def pixelcnn_pp():
        logistics = afflow.conditionals.DiscretizedLogistics(5, 256)
        sizes = {"channels": 32, "num_blocks": (1, 1, 2), "conditional": logistics}
        model = afflow.zoo.pixelcnn_pp((28, 28), **sizes, rngs=nnx.Rngs(0))
        return training_step(model, jnp.zeros((16, 28, 28)))

    def tarflow():
        sizes = {"num_blocks": 4, "num_layers": 2, "width": 128, "num_heads": 4}
        model = afflow.zoo.tarflow((28, 28), 4, **sizes, rngs=nnx.Rngs(0))
        return training_step(model, jax.random.normal(key, (32, 28, 28)))

    def density():
        model, x = flow(784, 1024), jax.random.normal(key, (2000, 784))
        return lambda: model.log_prob(x)

    def sample():
        model = flow(784, 1024)
        return lambda: model.sample(key, 2000)

    return {
        "training step of a PixelCNN++, batch 16": pixelcnn_pp,
        "training step of a TarFlow, batch 32": tarflow,
        "training step of a MAF, D=43, batch 1000": lambda: training_step(
            flow(43, 512), jax.random.normal(key, (1000, 43))
        ),
        "density of a MAF, D=784, 2000 events": density,
        "sample of a MAF, D=784, 2000 events": sample,
    }


def work(repeats: int) -> dict[str, dict]:
    """Time the programs in this process: seconds of every call, and page faults of a call."""
    results = {}
    for name, make in programs().items():
        run = make()
        compile_seconds(run)
        jax.block_until_ready(run())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = interleave({name: run}, repeats, 60)[name]
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        results[name] = {"seconds": seconds.tolist(), "faults": faults / len(seconds)}
    return results


def run_worker(kind: str, repeats: int) -> dict[str, dict]:
    """Time the programs in a new process of one kind."""
    command = [sys.executable, __file__, "--worker", "--repeats", str(repeats)]
    environment = {key: value for key, value in os.environ.items() if key not in SETTING}
    out = subprocess.run(command, env=environment | KINDS[kind], capture_output=True, check=True)
    return json.loads(out.stdout.splitlines()[-1])


def main(config: Config) -> None:
    """Run the experiment."""
    if config.worker:
        print(json.dumps(work(config.repeats)))
        return
    rounds: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for number in range(config.rounds):
        for kind, done in rounds.items():
            print(f"round {number + 1} of {config.rounds}: {kind}", flush=True)
            done.append(run_worker(kind, config.repeats))
    results = {}
    for name in rounds["small pages"][0]:
        row = {}
        for kind, done in rounds.items():
            medians = [1e3 * float(np.median(part[name]["seconds"])) for part in done]
            faults = float(np.median([part[name]["faults"] for part in done]))
            row[kind] = {"median_ms": float(np.median(medians)), "medians_ms": medians}
            row[kind]["page_faults"] = faults
        row["ratio"] = row["small pages"]["median_ms"] / row["large pages"]["median_ms"]
        results[name] = row
        times = ", ".join(f"{row[kind]['median_ms']:.0f} ms with {kind}" for kind in KINDS)
        print(f"{name}: {times}, ratio {row['ratio']:.2f}")
    save(config.out / "large_pages.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
