"""The gradient of sampling: implicit differentiation against backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from report import compile_seconds, interleave, summary

import afflow


def time_gradients(layer: afflow.MaskedAutoregressive, z: jax.Array, repeats: int) -> dict:
    """Time the gradient of one layer's serial direction, and count its memory.

    `implicit` is what `afflow` does; `backpropagation` differentiates through the D full
    passes of the usual implementation. Memory is the compiler's count of temporaries.
    """
    emit = Partial(afflow.Affine.forward_and_log_det, layer.univariate)

    def implicit(layer, z):
        return layer.forward_and_log_det(z)

    def through_the_loop(layer, z):
        x, log_dets = afflow.Sequential().run(layer.conditioner, emit, z, None)
        return x, log_dets.sum()

    def score(forward, layer, z):
        x, log_det = jax.vmap(forward, in_axes=(None, 0))(layer, z)
        return jnp.sum(jnp.sin(x)) + jnp.sum(log_det)

    def gradient(forward):
        return jax.jit(jax.grad(lambda layer, z: score(forward, layer, z), argnums=(0, 1)))

    pass_ = jax.jit(jax.vmap(layer.inverse_and_log_det))
    compiled = {"implicit": gradient(implicit), "backpropagation": gradient(through_the_loop)}
    runs = {name: lambda f=f: f(layer, z) for name, f in compiled.items()}
    runs["density pass"] = lambda: pass_(z)
    compiling = {name: compile_seconds(run) for name, run in runs.items()}
    times = interleave(runs, repeats, seconds=15.0)
    results: dict = {name: summary(times[name]) for name in runs}
    for name, f in compiled.items():
        memory = f.lower(layer, z).compile().memory_analysis()
        results[name] |= {
            "first_call_s": compiling[name],
            "temporaries_mb": memory.temp_size_in_bytes / 1e6,
        }
    return results | {"largest_relative_difference": _difference(*(runs[n]() for n in compiled))}


def _difference(a, b) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(max(np.max(np.abs(x - y)) / np.max(np.abs(y)) for x, y in pairs if x.size))


def print_gradients(results: dict) -> None:
    """Print the two ways side by side."""
    print("\nGradient through the serial direction of one layer (D=43, 2x512, batch 1000):")
    for name in ("implicit", "backpropagation"):
        row = results[name]
        print(f"  {name:18}{row['median_ms']:9.1f} ms{row['temporaries_mb']:9.1f} MB")
    ratios = [
        results["backpropagation"][q] / results["implicit"][q]
        for q in ("median_ms", "temporaries_mb")
    ]
    print(f"  {'ratio':18}{ratios[0]:9.1f} x {ratios[1]:9.1f} x")
