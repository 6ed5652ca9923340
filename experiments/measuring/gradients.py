"""The gradient of sampling: implicit differentiation against backpropagation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial

import afflow
from measuring.report import compile_seconds, interleave, summary


class Backpropagated(afflow.MaskedAutoregressive):
    """A layer whose gradients come from backpropagation through the loop of its solver."""

    def forward_and_log_det(self, x, context=None):
        """Return the sample and its log-determinant."""
        emit = Partial(type(self.univariate).forward_and_log_det, self.univariate)
        x, log_dets = self.solver.run(self.conditioner, emit, x, context)
        return x, log_dets.sum()


KINDS = {
    "implicit": afflow.MaskedAutoregressive,
    "backpropagation": partial(Backpropagated, solver=afflow.FullPasses()),
}
"""The usual implementation of the second kind makes D full passes."""


def stack(kind: str, dim: int, hidden: tuple[int, ...], num_layers: int, seed: int):
    """Return layers in alternating order, differentiated as `kind` says."""

    def layer(rngs: nnx.Rngs) -> afflow.Chain:
        made = afflow.MADE(dim, 2, hidden, rngs=rngs)
        return afflow.Chain([afflow.Reverse(dim), KINDS[kind](made, afflow.Affine())])

    return afflow.Repeat(layer, num_layers, rngs=nnx.Rngs(seed))


def score(layers: afflow.Bijector, z: jax.Array) -> jax.Array:
    """Return a scalar that depends on the samples and their log-determinants."""
    x, log_det = jax.vmap(layers.forward_and_log_det)(z)
    return jnp.sum(jnp.sin(x)) + jnp.sum(log_det)


def time_gradients(stacks: dict[str, afflow.Bijector], z: jax.Array, repeats: int) -> dict:
    """Time the gradients of the serial direction of equal stacks, and record their memory.

    The memory is the compiler's size of temporaries. A density and its gradient are timed for
    comparison.
    """

    def density(layers):
        x, log_det = jax.vmap(layers.inverse_and_log_det)(z)
        return jnp.square(x).sum() + log_det.sum()

    pass_, density_gradient = jax.jit(density), jax.jit(jax.grad(density))
    gradient = jax.jit(jax.grad(score, argnums=(0, 1)))
    runs = {name: lambda layers=layers: gradient(layers, z) for name, layers in stacks.items()}
    runs["density pass"] = lambda: pass_(stacks["implicit"])
    runs["density gradient"] = lambda: density_gradient(stacks["implicit"])
    compiling = {name: compile_seconds(run) for name, run in runs.items()}
    times = interleave(runs, repeats, seconds=15.0)
    results: dict = {name: summary(times[name]) for name in runs}
    for name, layers in stacks.items():
        memory = gradient.lower(layers, z).compile().memory_analysis()
        results[name] |= {
            "first_call_s": compiling[name],
            "temporaries_mb": memory.temp_size_in_bytes / 1e6,
        }
    return results | {"largest_relative_difference": _difference(*(runs[n]() for n in stacks))}


def _difference(a, b) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(max(np.max(np.abs(x - y)) / np.max(np.abs(y)) for x, y in pairs if x.size))


def print_gradients(results: dict[int, dict]) -> None:
    """Print the times and memory of both kinds, a line for each number of layers."""
    print("\nGradient through the serial direction (D=43, layers of 2x512, batch 1000):")
    print(f"{'layers':>8}{'implicit':>24}{'backpropagation':>26}{'ratios':>18}")
    for num_layers, row in results.items():
        values = np.array([[row[n][q] for q in ("median_ms", "temporaries_mb")] for n in KINDS])
        (time, memory), (slow, large) = values
        print(
            f"{num_layers:8}{time:10.1f} ms {memory:7.1f} MB{slow:12.1f} ms {large:7.1f} MB"
            f"{slow / time:9.1f} {large / memory:8.1f}"
        )
