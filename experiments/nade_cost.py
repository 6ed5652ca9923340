"""The cost of NADE against the dimension, at fixed width, beside a MADE of that width.

python experiments/nade_cost.py # two minutes on two cores
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tyro
from flax import nnx
from measuring.report import interleave, save, summary

import afflow


@dataclass(frozen=True)
class Config:
    """Time `nade` over dimensions."""

    dims: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    """Dimensions of the events."""
    hidden: int = 500
    """Hidden units."""
    batch: int = 100
    """Events in one call."""
    repeats: int = 25
    """Timed calls of each function, in turn."""
    out: Path = Path(__file__).parent / "results"
    """Where to write the JSON and the plot."""


def log_likelihood(model, x):
    """Return the mean log-likelihood of a minibatch."""
    return model.log_prob(x).mean()


gradient = jax.jit(jax.grad(log_likelihood))


@partial(jax.jit, static_argnums=1)
def units_alone(a, dim):
    """Return the sum of the `dim` sigmoids of every hidden unit: arithmetic no NADE can save."""
    return jax.lax.scan(lambda a, _: (a + 1e-3, jax.nn.sigmoid(a).sum(-1)), a, None, length=dim)


def runs_of(dim: int, config: Config) -> dict:
    """Return the functions to time at one dimension, already compiled."""
    model = afflow.nade(dim, hidden=config.hidden, rngs=nnx.Rngs(0))
    made = afflow.made_model(dim, hidden=(config.hidden,), rngs=nnx.Rngs(0))
    key = jax.random.key(0)
    x = jax.random.bernoulli(key, 0.5, (config.batch, dim)).astype(np.float32)
    a = jax.random.normal(key, (config.batch, config.hidden))
    runs = {
        f"density {dim}": lambda: model.log_prob(x),
        f"sample {dim}": lambda: model.sample(key, config.batch),
        f"gradient {dim}": lambda: gradient(model, x),
        f"units {dim}": lambda: units_alone(a, dim),
        f"made gradient {dim}": lambda: gradient(made, x),
    }
    for run in runs.values():
        jax.block_until_ready(run())
    return runs


def main(config: Config) -> None:
    """Run the experiment."""
    runs = {name: run for dim in config.dims for name, run in runs_of(dim, config).items()}
    times = interleave(runs, config.repeats, 60.0)
    what = {
        kind: np.array([np.median(times[f"{kind} {dim}"]) for dim in config.dims])
        for kind in ("density", "sample", "gradient", "units", "made gradient")
    }
    slopes = {kind: np.polyfit(np.log(config.dims), np.log(t), 1)[0] for kind, t in what.items()}
    ratios = dict(zip(map(str, config.dims), what["sample"] / what["density"], strict=True))
    results = {
        "times": {name: summary(values) for name, values in times.items()},
        "exponent_of_dim": slopes,
        "sample_over_density": ratios,
    }
    save(config.out / "nade_cost.json", config, results)
    figure, axis = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for kind, values in what.items():
        axis.loglog(config.dims, 1e3 * values, "o-", label=f"{kind}: D^{slopes[kind]:.2f}")
    title = f"NADE, {config.hidden} hidden units, batch {config.batch}"
    axis.set(xlabel="dimension D", ylabel="median time (ms)", title=title)
    axis.legend()
    figure.savefig(config.out / "nade_cost.png", dpi=120)
    print("dimension" + "".join(f"{kind:>15}" for kind in what) + "   (ms)")
    for i, dim in enumerate(config.dims):
        print(f"{dim:9d}" + "".join(f"{1e3 * values[i]:15.2f}" for values in what.values()))
    print(f"time grows as D^{slopes['density']:.2f} and D^{slopes['sample']:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Config))
