"""Results files with a record of their run, and timing functions."""

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

Run = Callable[[], Any]
RESULTS_PAGE = Path(__file__).parents[2] / "notebooks" / "results.md"
"""The page of the guide whose tables scripts rewrite between markers."""


def environment() -> dict[str, Any]:
    """Return the command, versions and kind of machine of this run."""
    device = jax.devices()[0]
    machine = f"{os.cpu_count()}-core {platform.machine()} CPU"
    if device.platform != "cpu":
        machine = f"{device.device_kind}, {machine}"
    packages = ("afflow", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "command": shlex.join(["python", *map(_relative, sys.argv)]),
        "machine": machine,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def _relative(argument: str) -> str:
    """Return an absolute path as its last part, and any other argument unchanged."""
    path = Path(argument)
    return path.name if path.is_absolute() else argument


def save(path: Path, config: Any, results: Any) -> None:
    """Write results as JSON, with the environment and the configuration except its paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = asdict(config).items()
    settings = {name: value for name, value in values if not isinstance(value, Path)}
    content = {"environment": environment(), "config": settings, "results": results}
    path.write_text(json.dumps(content, indent=1, default=float) + "\n")


def keep_programs() -> None:
    """Keep compiled programs on disk, to save the next run of an experiment the compilation."""
    jax.config.update("jax_compilation_cache_dir", str(Path.home() / ".cache" / "afflow"))


def compile_seconds(run: Run) -> float:
    """Return the wall time of a first call, which compiles."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def interleave(runs: Mapping[str, Run], repeats: int, seconds: float) -> dict[str, np.ndarray]:
    """Time warm functions in turn, A B C A B C ..., to give all the same conditions.

    A function drops out once it has run `repeats` times, or at least twice and for longer than
    `seconds` in all.

    Returns:
        The seconds of every run, by name.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if len(times[name]) >= 2 and sum(times[name]) > seconds:
                continue
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in times.items()}


def summary(times: np.ndarray) -> dict[str, float]:
    """Return the median and quartiles, in milliseconds, of `times` in seconds."""
    low, median, high = 1e3 * np.percentile(times, [25, 50, 75])
    return {"median_ms": median, "q25_ms": low, "q75_ms": high, "runs": len(times)}
