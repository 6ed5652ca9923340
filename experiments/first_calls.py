"""Seconds that a new user waits for each call in a fresh process, mostly for compilation.

python experiments/first_calls.py # two minutes on two cores
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from measuring.report import save
from tqdm import tqdm

FLOWS = {
    "the README's MAF": {"make": "maf", "dim": 2, "num_layers": 3, "hidden": (32, 32)},
    "maf, as it comes": {"make": "maf", "dim": 8},
    "nsf, as it comes": {"make": "nsf", "dim": 8},
}


@dataclass(frozen=True)
class Config:
    """Time the first calls of each flow in fresh processes; with `flow`, of one in this process."""

    repeats: int = 5
    flow: str = ""
    out: Path = Path(__file__).parent / "results" / "first_calls.json"


def call_all(make: str, dim: int, **options: Any) -> dict[str, float]:
    """Return the seconds of a user's first calls, in order."""
    seconds, start = {}, time.perf_counter()

    def note(name: str) -> None:
        nonlocal start
        seconds[name] = time.perf_counter() - start
        start = time.perf_counter()

    import jax
    from flax import nnx

    import afflow

    note("import")
    x = np.random.default_rng(0).normal(size=(2000, dim)).astype(np.float32)
    key = jax.random.key(0)
    flow = getattr(afflow, make)(dim, data=x, rngs=nnx.Rngs(0), **options)
    note("build")
    flow, _ = afflow.fit(flow, x, key=key, max_epochs=1, progress=False)
    note("first epoch")
    flow, _ = afflow.fit(flow, x, key=key, max_epochs=2, learning_rate=5e-4, progress=False)
    note("two epochs, another learning rate")
    flow.log_prob(x).block_until_ready()
    note("density")
    flow.sample(key, 1000).block_until_ready()
    note("1000 samples")
    flow.sample(key, 1001).block_until_ready()
    note("1001 samples")
    return seconds


def main(config: Config) -> None:
    """Run the experiment."""
    if config.flow:
        print(json.dumps(call_all(**FLOWS[config.flow])))
        return
    results = {}
    for name in FLOWS:
        runs = []
        for _ in tqdm(range(config.repeats), desc=name, unit="process"):
            command = [sys.executable, __file__, "--flow", name]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            runs.append(json.loads(found.stdout))
        results[name] = {call: float(np.median([run[call] for run in runs])) for call in runs[0]}
        shown = ", ".join(f"{call} {value:.2f}" for call, value in results[name].items())
        print(f"{name}: {shown} s")
    save(config.out, config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
