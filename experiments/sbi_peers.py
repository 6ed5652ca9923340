"""The default posterior estimators of afflow and of the library sbi, on the same simulations.

    python experiments/sbi_peers.py --data-dir DATA    # extra `peers`

Both libraries get the simulations of `sbi_tasks.py`, and fit neural spline flows with all options
at their defaults. Writes the accuracy of a classifier between samples and reference samples (0.5
for exact samples), and the seconds to fit and to sample, compiling included.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from measuring.report import save
from sbi_tasks import find_folder, summarize
from simulators.sbibm import OBSERVATIONS, TASKS, read_observation

import afflow

Sample = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Config:
    """The tasks and the libraries."""

    tasks: tuple[str, ...] = ("two_moons", "slcp")
    libraries: tuple[str, ...] = ("afflow", "sbi")
    simulations: int = 10_000
    samples: int = 10_000
    num_observations: int = len(OBSERVATIONS)
    seed: int = 0
    data_dir: Path | None = None
    """The folder of the data sets; by default the environment variable AFFLOW_DATA."""
    out: Path = Path(__file__).parent / "results" / "sbi"


def fit_afflow(prior: afflow.Flow, theta: jax.Array, x: jax.Array, seed: int) -> Sample:
    """Fit by `afflow.sbi.npe`. Return a function of an observation and a number of samples."""
    posterior, _ = afflow.sbi.npe(prior, theta, x, key=jax.random.key(seed), progress=False)

    def sample(observed, n):
        key = jax.random.key(seed + 1)
        return np.asarray(posterior.sample(key, n, np.asarray(observed, np.float32)))

    return sample


def fit_sbi(prior: afflow.Flow, theta: jax.Array, x: jax.Array, seed: int) -> Sample:
    """Fit by `sbi.inference.NPE`. Return a function of an observation and a number of samples."""
    import torch
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    torch.manual_seed(seed)
    low, high = (torch.tensor(np.asarray(end[...])) for end in _get_ends(prior))
    inference = NPE(BoxUniform(low, high), density_estimator="nsf", show_progress_bars=False)
    rows = (torch.tensor(np.array(part)) for part in (theta, x))
    inference.append_simulations(*rows).train()
    posterior = inference.build_posterior()

    def sample(observed, n):
        given = torch.tensor(observed, dtype=torch.float32)
        return posterior.sample((n,), x=given, show_progress_bars=False).numpy()

    return sample


def _get_ends(prior: afflow.Flow) -> tuple[Any, Any]:
    """Return the lower and upper ends of a prior on a box."""
    box: Any = prior.bijector
    return box.low, box.high


FITS = {"afflow": fit_afflow, "sbi": fit_sbi}


def measure(config: Config, folder: Path, name: str, library: str) -> dict[str, Any]:
    """Fit one task in one library, and test its samples for each observation."""
    task, key = TASKS[name](), jax.random.key(config.seed)
    made = afflow.sbi.simulate(
        task.simulator, task.prior, config.simulations, key=key, progress=False
    )
    if library == "sbi":
        import_module("sbi.inference")  # before the clock starts, as afflow
    start = time.perf_counter()
    sample = FITS[library](task.prior, made.theta, made.x, config.seed)
    fit_seconds, scores, seconds = time.perf_counter() - start, [], []
    for number in OBSERVATIONS[: config.num_observations]:
        x, reference = read_observation(folder, name, number)
        start = time.perf_counter()
        theta = sample(x, config.samples)
        seconds.append(time.perf_counter() - start)
        scores.append(afflow.sbi.c2st(reference[: len(theta)], theta, seed=config.seed + 1))
        print(f"{name} {library} observation {number}: C2ST {scores[-1]:.4f}", flush=True)
    return summarize(scores) | {"fit_seconds": fit_seconds, "sample_seconds": seconds}


def main(config: Config) -> None:
    """Measure each task in each library; write after each."""
    folder, results = find_folder(config), {}
    for name in config.tasks:
        for library in config.libraries:
            found = measure(config, folder, name, library)
            results[f"{name}, {library}"] = found | {"version": version(library)}
            print(f"{name} {library} {found['c2st']:.4f}, {found['fit_seconds']:.0f} s to fit")
            save(config.out / "peers.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
