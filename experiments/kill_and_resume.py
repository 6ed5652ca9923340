"""Kill a training at random moments with SIGKILL, resume it, and compare the results bit by bit.

python experiments/kill_and_resume.py # some minutes on two cores
"""

import multiprocessing
import random
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import tyro
from flax import nnx
from measuring.report import save

import afflow


@dataclass(frozen=True)
class Config:
    """Kill and resume a small training."""

    kills: int = 20
    """Number of trainings, each killed once."""
    rows: int = 8_000
    """Rows of data."""
    epochs: int = 5
    """Epochs of each training."""
    steps: int = 7
    """Steps from one checkpoint to the next."""
    seed: int = 0
    """Seed of the moments of the kills."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["afflow", "orbax.checkpoint"])  # imported once


def train(config: Config, folder: Path) -> None:
    """Train to the end and write the parameters and losses to the folder."""
    x = np.random.default_rng(0).standard_t(5, (config.rows, 4)).astype(np.float32)
    flow = afflow.maf(4, num_layers=2, hidden=(16, 16), rngs=nnx.Rngs(0))
    flow, history = afflow.fit(
        flow,
        x,
        key=jax.random.key(0),
        max_epochs=config.epochs,
        ema=0.99,
        checkpoint=afflow.Checkpoint(folder / "checkpoints", steps=config.steps),
        progress=False,
    )
    leaves = {f"{i}": leaf for i, leaf in enumerate(map(np.asarray, jax.tree.leaves(flow)))}
    np.savez(folder / "final.npz", **leaves, losses=history.train + history.validation)


def run(config: Config, folder: Path, seconds: float | None = None) -> float | None:
    """Train in another process, and kill it `seconds` after its start, if given.

    Returns:
        The seconds that the process ran, or `None` if it was killed.
    """
    start = time.perf_counter()
    process = PROCESSES.Process(target=train, args=(config, folder))
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"Expected a training, got exit status {process.exitcode}.")
    return None if process.exitcode else time.perf_counter() - start


def kill_once(config: Config, scratch: Path, seconds: float) -> dict:
    """Kill a training after `seconds`, resume it, and return the comparison.

    If the training ends before `seconds`, it is repeated with less time.
    """
    folder = Path(tempfile.mkdtemp(dir=scratch))
    if run(config, folder, seconds) is not None:
        return kill_once(config, scratch, 0.8 * seconds)
    checkpoints = [int(p.name) for p in folder.glob("checkpoints/*") if p.name.isdigit()]
    run(config, folder)
    pairs = [np.load(parent / "final.npz") for parent in (scratch, folder)]
    same = all(np.array_equal(pairs[0][name], pairs[1][name]) for name in pairs[0].files)
    found = {"seconds": seconds, "resumed from step": max(checkpoints, default=0)}
    print(found := found | {"identical": same}, flush=True)
    return found


def main(config: Config) -> None:
    """Run the experiment."""
    rng = random.Random(config.seed)
    with tempfile.TemporaryDirectory() as name:
        run(config, Path(name))  # writes the result that all others must equal, and fills caches
        whole = run(config, Path(tempfile.mkdtemp(dir=name))) or 0.0
        moments = [rng.uniform(0, whole) for _ in range(config.kills)]
        results = [kill_once(config, Path(name), seconds) for seconds in moments]
    identical = sum(result["identical"] for result in results)
    print(f"{identical} of {config.kills} identical")
    summary = {"whole run, seconds": whole, "killed": config.kills, "identical": identical}
    save(config.out / "kill_and_resume.json", config, summary | {"runs": results})


if __name__ == "__main__":
    main(tyro.cli(Config))
