"""Density, samples and training of one flow on one accelerator: afflow, its variants and peers.

    python experiments/accelerator.py                          # under six minutes on a GPU
    python experiments/accelerator.py --small --out /tmp/acc   # a rehearsal on a CPU

Everything runs in one process. `peers/one_device.py` builds each library's flow as the library
documents it. Libraries that are not installed are skipped. A cell of the tables is one function of
one variant at one size. Three times are measured for each cell. First comes the first call, with
compilation. Then come single calls, each finished before the next starts. Last come calls in a
queue, where only the last is waited for. Results are written after every cell. A second run
continues where the first one stopped, and retries failed cells at the end. PyTorch multiplies
matrices in full float32, its default.
"""

import os

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else no memory is left for PyTorch

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from measuring.report import save, summary
from peers.cell_tables import draw, print_tables, ratios
from peers.cells import BLOCKS, MIDDLE, SEED, SMALL_BLOCKS, TINY, Cell, planned
from peers.one_device import CALLS, Call, accuracy, is_finite, trained_flow
from tqdm import tqdm

QUEUE = 10  # calls, at most


@dataclass(frozen=True)
class Config:
    """One flow on one accelerator."""

    small: bool = False
    """Rehearse with tiny flows."""
    seconds: float = 330.0
    """Seconds after the start from which no cell starts; cells left out are listed."""
    repeats: int = 20
    """Largest number of single calls of a cell."""
    cell_seconds: float = 1.5
    """Seconds for the single calls of a cell; at least one call is made."""
    tests: bool = False
    """Run the tests afterwards."""
    test_args: str = "tests"
    """Arguments of pytest that select the tests."""
    test_seconds: float = 240.0
    """Seconds after which the tests are stopped."""
    out: Path = Path(__file__).parent / "results" / "accelerator"
    """Where to write the JSON and the picture, named after the device."""


def time_call(call: Call, config: Config) -> dict[str, Any]:
    """Time the first call, single calls, and calls in a queue."""
    start = time.perf_counter()
    out = call.run()
    call.wait(out)
    first, times = time.perf_counter() - start, []
    while not times or (len(times) < config.repeats and sum(times) < config.cell_seconds):
        start = time.perf_counter()
        out = call.run()
        call.wait(out)
        times.append(time.perf_counter() - start)
    queue = int(np.clip(config.cell_seconds / np.median(times), 1, QUEUE))
    queued = float(np.median(times))
    if queue > 1:
        start = time.perf_counter()
        for _ in range(queue):
            out = call.run()
        call.wait(out)
        queued = (time.perf_counter() - start) / queue
    results = summary(np.array(times) / call.steps)
    results |= {"queued_ms": 1e3 * queued / call.steps, "queue": queue, "first_call_s": first}
    return results | {"finite": is_finite(out)}


def measure(cell: Cell, config: Config) -> dict[str, Any]:
    """Return the measurements of a cell, or its error."""
    others: dict[str, Callable[[Cell], dict]] = {
        "accuracy": accuracy,
        "training": lambda cell: trained_flow(cell.family, cell.sizes, cell.precision)[1],
    }
    try:
        with jax.default_matmul_precision(cell.precision) if cell.precision else nullcontext():
            if cell.what in others:
                return others[cell.what](cell)
            return time_call(CALLS[cell.what](cell), config)
    except Exception as error:  # a variant that fails is reported and must not end the run
        reason = str(error).strip().partition("\n")[0][:300]
        tqdm.write(f"{cell}: {type(error).__name__}: {reason}")
        return {"failed": f"{type(error).__name__}: {reason}"}


def run_cells(cells: list[Cell], content: dict[str, Any], path: Path, config: Config) -> None:
    """Measure the cells that `content` does not hold yet, until the time is over."""
    found, start = content["cells"], time.perf_counter()
    missing = [cell for cell in cells if str(cell) not in found]
    failed = [cell for cell in cells if "failed" in found.get(str(cell), {})]
    for cell in tqdm(missing + failed, desc="accelerator", unit="cell", mininterval=5):
        if time.perf_counter() - start > config.seconds:
            break
        # Written before the measurement: if a cell kills the process, the next run tries it last.
        found[str(cell)] = cell._asdict() | {"failed": "the process ended"}
        save(path, config, content)
        found[str(cell)] = cell._asdict() | measure(cell, config)
    content["ratios"] = ratios(found)
    content["left_out"] = [str(cell) for cell in cells if str(cell) not in found]
    save(path, config, content)


def run_tests(config: Config) -> dict[str, Any]:
    """Run pytest; return the last lines that it prints, and its exit code."""
    command = [*"-m pytest -q -x --no-header -p no:cacheprovider".split()]
    command += [] if find_spec("xdist") else ["-o", "addopts="]
    command += shlex.split(config.test_args)
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options |= {"cwd": Path(__file__).parents[1], "timeout": config.test_seconds}
    start = time.perf_counter()
    try:
        run = subprocess.run([sys.executable, *command], check=False, **options)
        code, output = run.returncode, run.stdout
    except subprocess.TimeoutExpired as error:
        code, output = None, error.stdout or b""
    lines = output.decode(errors="replace").splitlines()[-30:]
    took = {"exit_code": code, "seconds": time.perf_counter() - start}
    return took | {"command": shlex.join(["python", *command]), "last_lines": lines}


def main(config: Config) -> None:
    """Run the experiment."""
    kind = re.sub("[^a-z0-9]+", "_", jax.devices()[0].device_kind.lower())
    path = config.out / f"{kind}.json"
    content: dict[str, Any] = json.loads(path.read_text())["results"] if path.exists() else {}
    packages = [name for name in ("flowjax", "equinox", "zuko", "torch") if find_spec(name)]
    content |= {"seed": SEED, "peer_versions": {name: version(name) for name in packages}}
    content.setdefault("cells", {})
    cells = list(planned(SMALL_BLOCKS if config.small else BLOCKS))
    run_cells(cells, content, path, config)
    print_tables(content)
    dim = (TINY if config.small else MIDDLE).dim
    draw(content["cells"], dim, jax.devices()[0].device_kind, path.with_suffix(".png"))
    if config.tests:
        content["tests"] = run_tests(config)
        print("\n".join(content["tests"]["last_lines"]))
        save(path, config, content)
    print(f"\nWritten: {path.name} and .png in {config.out.name}/")


if __name__ == "__main__":
    main(tyro.cli(Config))
