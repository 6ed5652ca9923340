"""Comparison of the solvers on a flow trained on real data.

    python experiments/trained_solvers.py        # half a minute on two cores

A MAF is fitted to handwritten digits, which gives it steep scales and strong couplings. The same
noise then passes through each solver, in float32 and in float64.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import numpy as np
import tyro
from flax import nnx
from measuring.report import save
from recipes.digits import load_digits

import afflow

SOLVERS = {"Incremental": afflow.Incremental(), "Jacobi": afflow.Jacobi()}


@dataclass(frozen=True)
class Config:
    """Solvers compared on a flow of handwritten digits."""

    num_layers: int = 5
    """Number of autoregressive layers."""
    hidden: tuple[int, ...] = (128, 128)
    """Hidden widths."""
    epochs: int = 10
    """Epochs of training."""
    samples: int = 500
    """Events to draw with each solver."""
    seed: int = 0
    """Seed of the data split, the initial weights, training and noise."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON."""


def with_solver(config: Config, trained: afflow.Flow | None, solver, data) -> afflow.Flow:
    """Return a MAF that uses `solver`, with the weights of `trained` if given."""
    options = {"num_layers": config.num_layers, "hidden": config.hidden, "data": data}
    options |= {"activation": jax.nn.relu, "mix": lambda dim, rngs: afflow.Reverse(dim)}
    flow = afflow.maf(64, solver=solver, **options, rngs=nnx.Rngs(config.seed))
    if trained is None:
        return flow
    return jax.tree.unflatten(jax.tree.structure(flow), jax.tree.leaves(trained))


def decoded(flow: afflow.Flow, z: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return data and log-determinants from noise `(N, D)`, in the float type of `z`."""
    flow = jax.tree.map(lambda a: a.astype(z.dtype), flow)
    return jax.device_get(jax.jit(jax.vmap(flow.bijector.forward_and_log_det))(z))


def differences(config: Config, trained: afflow.Flow, z: jax.Array, data) -> dict:
    """Return the largest differences from `FullPasses`, relative to max(1, |value|)."""
    expected = decoded(with_solver(config, trained, afflow.FullPasses(), data), z)
    results = {"log_det_range": [float(f(expected[1])) for f in (np.min, np.max)]}
    for name, solver in SOLVERS.items():
        found = decoded(with_solver(config, trained, solver, data), z)
        pairs = zip(("x", "log_det"), found, expected, strict=True)
        results[name] = {
            part: float((abs(a - b) / np.maximum(1, abs(b))).max()) for part, a, b in pairs
        }
    return results


def main(config: Config) -> None:
    """Train, compare, and write the results."""
    train, validation, test = load_digits(config.seed, copies=4)
    flow = with_solver(config, None, afflow.Incremental(), train)
    options = {"validation": validation, "max_epochs": config.epochs}
    flow, _ = afflow.fit(flow, train, key=jax.random.key(config.seed), **options)
    results: dict = {"test_nats": {"trained": float(np.mean(flow.log_prob(test)))}}
    z = jax.random.normal(jax.random.key(config.seed), (config.samples, 64))
    jax.config.update("jax_enable_x64", True)  # noqa: FBT003
    for dtype in (jnp.float32, jnp.float64):
        results[dtype.__name__] = differences(config, flow, z.astype(dtype), train)
        print(dtype.__name__, results[dtype.__name__])
    save(config.out / "trained_solvers.json", config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
