"""Posterior and likelihood estimation on four tasks of the benchmark sbibm, by the C2ST.

    python experiments/sbi_tasks.py --data-dir DATA
    python experiments/sbi_tasks.py --tasks slcp --methods nle --data-dir DATA
    python experiments/sbi_tasks.py --small --data-dir DATA

Writes the accuracy of a classifier between samples and reference samples of the posterior, for each
of ten observations. It is 0.5 for exact samples. One set of simulations and one ensemble of flows
serve all observations of a task. A tenth of the simulations is held out; its likelihood stops each
fit, and chooses the kind of flow and the weight decay. The other settings were chosen by the
likelihood of further simulations. No choice sees a reference sample.

Lueckmann et al. 2021, arXiv:2101.04653.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
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
    num_layers: int = 5
    hidden: tuple[int, ...] = (128, 128)
    weight_decays: tuple[float, ...] = (0.3, 1.0, 3.0)
    """For each task and method, the pair of flow and decay with the best validation loss."""
    members: int = 3
    """Flows in the ensemble."""
    max_epochs: int = 150
    learning_rate: float = 1e-3
    num_moves: int = 20
    """Metropolis steps at each temperature, for the likelihood."""
    seed: int = 0
    data_dir: Path | None = None
    """The folder of the data sets; by default the environment variable AFFLOW_DATA."""
    small: bool = False
    """One observation and few simulations, to try the script."""
    out: Path = Path(__file__).parent / "results" / "sbi"


FLOWS: dict[str, Callable[..., afflow.Flow]] = {
    "nsf with relu": partial(afflow.nsf, activation=jax.nn.relu),
    "nsf with tanh": afflow.nsf,
    "maf with relu": partial(afflow.maf, activation=jax.nn.relu),
}
Estimate = Callable[..., tuple[afflow.Flow, afflow.training.History]]
Sample = Callable[[jax.Array, np.ndarray], jax.Array]


def fit_members(config: Config, estimate: Estimate) -> tuple[afflow.Ensemble, dict[str, Any]]:
    """Fit an ensemble with the flow and weight decay of the best validation loss; record it."""
    start = time.perf_counter()
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 1), config.members)
    candidates = {
        f"{name}, {decay}": partial(
            estimate,
            flow=partial(make, num_layers=config.num_layers, hidden=config.hidden),
            weight_decay=decay,
        )
        for (name, make), decay in product(FLOWS.items(), config.weight_decays)
    }
    fits = {name: candidate(key=keys[0]) for name, candidate in candidates.items()}
    losses = {name: min(history.validation) for name, (_, history) in fits.items()}
    chosen = min(losses, key=losses.__getitem__)
    members = [fits[chosen][0], *(candidates[chosen](key=key)[0] for key in keys[1:])]
    seconds = time.perf_counter() - start
    record = {"fit_seconds": seconds, "chosen": chosen, "validation": losses}
    return afflow.Ensemble(members), record


def fit(config: Config, task: Task, method: Method) -> tuple[Sample, dict[str, Any]]:
    """Simulate and fit. Return a function that samples the posterior, and a record of the fit."""
    key = jax.random.key(config.seed)
    made = sbi.simulate(task.simulator, task.prior, config.simulations, key=key, progress=False)
    options = {
        "max_epochs": config.max_epochs,
        "learning_rate": config.learning_rate,
        "progress": False,
    }
    if method == "npe":
        estimate = partial(sbi.npe, task.prior, made.theta, made.x, **options)
        model, record = fit_members(config, estimate)
        return partial(sample_directly, config, model), record
    model, record = fit_members(config, partial(sbi.nle, made.theta, made.x, **options))
    return partial(sample_by_tempering, config, task.prior, model), record


def sample_directly(
    config: Config, posterior: afflow.Ensemble, key: jax.Array, x: np.ndarray
) -> jax.Array:
    """Return samples `(samples, D)` of an estimated posterior."""
    return posterior.sample(key, config.samples, jax.numpy.asarray(x, float))


def sample_by_tempering(
    config: Config, prior: afflow.Flow, likelihood: afflow.Ensemble, key: jax.Array, x: np.ndarray
) -> jax.Array:
    """Return samples `(samples, D)` of the posterior of an estimated likelihood."""
    posterior = sbi.Posterior(prior, likelihood, x)
    return posterior.sample(key, config.samples, num_moves=config.num_moves)


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
        weight_decays=(0.1, 1.0),
        members=2,
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
