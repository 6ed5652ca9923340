"""How many steps in turn, and seconds, each solver takes on the layers of saved models.

    python experiments/solver_steps.py --models tarflow.zip transformer.zip

A flow is run layer by layer on noise; a density model draws samples. `Incremental` takes one step
for each token. `Jacobi` takes sweeps, and with blocks the sweeps of all blocks. The results are
compared with the results of `Incremental`. At last `calibrate` chooses a solver for each layer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from measuring.report import interleave, save, summary

import afflow
from afflow.core.bijector import map_events

SWEEPS: list[int] = []


@dataclass(frozen=True)
class Config:
    """Solvers compared on saved models."""

    models: list[Path] = field(default_factory=list)
    """Files of `afflow.save`."""
    batch: int = 64
    """Events in one call."""
    divisions: tuple[int, ...] = (2, 4, 7)
    """Blocks of an event."""
    tol: float = 1e-5
    """The tolerance at which the sweeps of a flow end."""
    repeats: int = 5
    """Timed calls of each solver, in turn."""
    seed: int = 0
    """Seed of the noise."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


@dataclass(frozen=True, repr=False)
class Counted(afflow.Jacobi):
    """`Jacobi` that records the number of sweeps of each event in `SWEEPS`."""

    def run(self, conditioner, emit, inputs, context):
        """Return the event, and record the number of sweeps."""
        x, aux, count = self.run_and_count(conditioner, emit, inputs, context)
        jax.debug.callback(lambda count: SWEEPS.append(int(count)), count)
        return x, aux


def list_solvers(config: Config, length: int) -> dict[str, afflow.bijectors.Solver]:
    """Return the solvers by name."""
    sizes = {f"{n} blocks": -(-length // n) for n in config.divisions}
    blocks = {name: afflow.Jacobi(config.tol, block=size) for name, size in sizes.items()}
    return {"incremental": afflow.Incremental(), "1 block": afflow.Jacobi(config.tol), **blocks}


def compare(config: Config, length: int, run: Callable[[Any], Any]) -> dict[str, dict]:
    """Return steps, seconds and differences of each solver; `run(solver)` returns the events."""
    solvers = list_solvers(config, length)
    results = {name: np.asarray(run(solver)) for name, solver in solvers.items()}  # compiles
    runs = {name: lambda solver=solver: run(solver) for name, solver in solvers.items()}
    times = interleave(runs, config.repeats, 30.0)
    found = {}
    for name, solver in solvers.items():
        steps = count_steps(run, solver) if isinstance(solver, afflow.Jacobi) else [length]
        scale = np.maximum(1, np.abs(results["incremental"]))
        gap = np.abs(results[name] - results["incremental"]) / scale
        found[name] = {
            "steps_mean": float(np.mean(steps)),
            "steps_max": int(np.max(steps)),
            "time": summary(times[name]),
            "difference": float(gap.max()),
        }
        print(f"  {name:12} {found[name]}", flush=True)
    return found


def count_steps(run: Callable[[Any], Any], solver: afflow.Jacobi) -> list[int]:
    """Return the number of sweeps of every event."""
    SWEEPS.clear()
    jax.block_until_ready(run(Counted(solver.tol, block=solver.block)))
    jax.effects_barrier()
    return list(SWEEPS)


def compare_on_flow(config: Config, flow: afflow.Flow) -> dict[str, Any]:
    """Compare the solvers on every layer of a flow, and on the flow with the chosen solvers."""
    found = {}

    def visit(layer, batch, context, *, forward):
        if isinstance(layer, afflow.MaskedAutoregressive) and forward:
            length = layer.event_shape[0]
            print(f"layer {len(found)}: {length} tokens", flush=True)

            def run(solver):
                layer.solver = solver
                return map_events(layer, batch, context, forward=True)

            found[f"layer {len(found)}"] = compare(config, length, run)
            layer.solver = afflow.Incremental()

    keys = jax.random.split(jax.random.key(config.seed), config.batch)
    flow.bijector.walk(jax.vmap(flow.base.sample)(keys), None, visit, forward=True)
    return found


def compare_on_model(config: Config, model: Any) -> dict[str, Any]:
    """Compare the solvers on a density model, whose tokens are drawn with fixed keys."""
    inner = getattr(model, "model", model)

    def run(solver):
        inner.solver = solver
        return model.sample(jax.random.key(config.seed), config.batch)

    return {"model": compare(config, inner.event_shape[0], run)}


def time_the_choice(config: Config, model: Any) -> dict[str, Any]:
    """Return the chosen solvers, and the seconds of a density and of samples with and without."""
    chosen = afflow.calibrate(model, jax.random.key(1), num_samples=config.batch)
    key = jax.random.key(config.seed)
    runs = {
        name: lambda flow=flow: flow.sample(key, config.batch)
        for name, flow in {"incremental": model, "calibrated": chosen}.items()
    }
    x = jax.block_until_ready(runs["incremental"]())
    runs["density"] = lambda: model.log_prob(x)
    for run in runs.values():
        jax.block_until_ready(run())
    times = interleave(runs, config.repeats, 60.0)
    solvers = re.findall(r"solver=(\w+\([^)]*\))", str(chosen))
    return {"solvers": solvers, **{name: summary(times[name]) for name in runs}}


def main(config: Config) -> None:
    """Compare the solvers on every model, and write the results."""
    results = {}
    for path in config.models:
        model = afflow.load(path)
        print(path.stem, flush=True)
        is_flow = isinstance(model, afflow.Flow)
        found = (compare_on_flow if is_flow else compare_on_model)(config, model)
        model = afflow.load(path)  # with its own solvers again
        results[path.stem] = found | {"choice": time_the_choice(config, model)}
        save(config.out / "solver_steps.json", replace(config, models=[]), results)


if __name__ == "__main__":
    main(tyro.cli(Config))
