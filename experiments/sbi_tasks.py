"""Posterior and likelihood estimation on four tasks of the benchmark sbibm, by the C2ST.

    python experiments/sbi_tasks.py --data-dir DATA
    python experiments/sbi_tasks.py --tasks slcp --methods nle --data-dir DATA
    python experiments/sbi_tasks.py --small --data-dir DATA

Writes the accuracy of a classifier between samples and reference samples of the posterior, for each
of ten observations. It is 0.5 for exact samples. One set of simulations and one fit serve all
observations of a task. The settings of the fits were chosen by the log-likelihood of other
simulations, without the references.

Lueckmann et al. 2021, arXiv:2101.04653.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from measuring.report import keep_programs, save
from simulators.sbibm import OBSERVATIONS, TASKS, Task, read_observation

import afflow
from afflow import sbi

Method = Literal["npe", "nle"]


@dataclass(frozen=True)
class Config:
    """The tasks, the methods, and the settings of the fits."""

    tasks: tuple[str, ...] = tuple(TASKS)
    methods: tuple[Method, ...] = ("npe", "nle")
    simulations: int = 10_000
    samples: int = 10_000
    """Posterior samples for each observation, as many as reference samples."""
    num_observations: int = len(OBSERVATIONS)
    num_layers: int = 8
    hidden: tuple[int, ...] = (64, 64)
    max_epochs: int = 100
    learning_rate: float = 1e-3
    num_moves: int = 20
    """Metropolis steps at each temperature, for the likelihood."""
    seed: int = 0
    data_dir: Path | None = None
    """The folder of the data sets; by default the environment variable AFFLOW_DATA."""
    small: bool = False
    """One observation and few simulations, to try the script."""
    out: Path = Path(__file__).parent / "results" / "sbi"


Sample = Callable[[jax.Array, np.ndarray], jax.Array]
Fitted = tuple[Sample, afflow.training.History]


def fit_npe(config: Config, task: Task, made: sbi.Simulations, **options: Any) -> Fitted:
    """Fit a posterior. Return a function that samples it, and the history of the fit."""
    posterior, history = sbi.npe(task.prior, made.theta, made.x, **options)

    def sample(key, x):
        return posterior.sample(key, config.samples, jax.numpy.asarray(x, float))

    return sample, history


def fit_nle(config: Config, task: Task, made: sbi.Simulations, **options: Any) -> Fitted:
    """Fit a likelihood. Return a function that samples its posterior, and the history."""
    likelihood, history = sbi.nle(made.theta, made.x, **options)

    def sample(key, x):
        posterior = sbi.Posterior(task.prior, likelihood, x)
        return posterior.sample(key, config.samples, num_moves=config.num_moves)

    return sample, history


FITS: dict[Method, Callable[..., Fitted]] = {"npe": fit_npe, "nle": fit_nle}


def fit(config: Config, task: Task, method: Method) -> tuple[Sample, dict[str, Any]]:
    """Simulate and fit. Return a function that samples, and a record of the fit."""
    simulate_key, fit_key = jax.random.split(jax.random.key(config.seed))
    made = sbi.simulate(
        task.simulator, task.prior, config.simulations, key=simulate_key, progress=False
    )
    flow = partial(afflow.nsf, num_layers=config.num_layers, hidden=config.hidden)
    start = time.perf_counter()
    sample, history = FITS[method](
        config,
        task,
        made,
        key=fit_key,
        flow=flow,
        max_epochs=config.max_epochs,
        learning_rate=config.learning_rate,
        progress=False,
    )
    record = {
        "fit_seconds": time.perf_counter() - start,
        "epochs": len(history.train),
        "validation": min(history.validation),
    }
    return sample, record


def measure(config: Config, folder: Path, name: str, method: Method) -> dict[str, Any]:
    """Fit one method on one task, and test its samples for each observation."""
    sample, record = fit(config, TASKS[name](), method)
    scores, seconds = [], []
    for number in OBSERVATIONS[: config.num_observations]:
        x, reference = read_observation(folder, name, number)
        start = time.perf_counter()
        theta = np.asarray(sample(jax.random.key(config.seed + number), x))
        seconds.append(time.perf_counter() - start)
        scores.append(sbi.c2st(reference[: len(theta)], theta, seed=config.seed + 1))
        print(f"{name} {method} observation {number}: C2ST {scores[-1]:.4f}", flush=True)
    return record | {"sample_seconds": seconds} | summarize(scores)


def summarize(scores: list[float]) -> dict[str, Any]:
    """Return the mean score, its standard error over the observations, and each score."""
    spread = np.std(scores, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.nan
    return {"c2st": np.mean(scores), "standard_error": spread, "scores": scores}


def find_folder(config: Config) -> Path:
    """Return the folder of the data sets, or raise `ValueError`."""
    folder = config.data_dir or os.environ.get("AFFLOW_DATA")
    if not folder:
        raise ValueError("Expected --data-dir or AFFLOW_DATA: a folder with sbibm/, got neither.")
    return Path(folder)


def shrink(config: Config) -> Config:
    """Return the settings of a quick run on the same tasks and methods."""
    return Config(
        config.tasks,
        config.methods,
        simulations=500,
        samples=500,
        num_observations=1,
        num_layers=1,
        hidden=(8,),
        max_epochs=2,
        num_moves=2,
        data_dir=config.data_dir,
        small=True,
        out=config.out / "small",
    )


def main(config: Config) -> None:
    """Measure all tasks by all methods; print the scores and write one file for each pair."""
    folder = find_folder(config)
    config = shrink(config) if config.small else config
    keep_programs()
    for name in config.tasks:
        for method in config.methods:
            result = measure(config, folder, name, method)
            print(f"{name:17} {method} {result['c2st']:.4f} ± {result['standard_error']:.4f}")
            save(config.out / f"{name}_{method}.json", config, {name: {method: result}})


if __name__ == "__main__":
    main(tyro.cli(Config))
