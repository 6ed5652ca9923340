"""JAX's part in the serial direction played by NumPy, where nothing is compiled.

Slot arithmetic does not depend on who multiplies. A grid of thousands of networks, each of
which XLA would compile for a second, runs in seconds with this.
"""

from types import SimpleNamespace

import jax
import numpy as np

from afflow._tools import bounds, lowering, numerics
from afflow._tools.batch_last import batch_last
from afflow.bijectors import autoregressive, compose
from afflow.conditioners import made, masked, substitution
from afflow.core import conditioner
from afflow.univariates import affine


def scan(f, carry, xs, *, reverse=False, unroll=False):
    outs, length = [], len(jax.tree.leaves(xs)[0])
    for i in reversed(range(length)) if reverse else range(length):
        carry, out = f(carry, jax.tree.map(lambda a, i=i: a[i], xs))
        outs.append(out)
    outs = outs[::-1] if reverse else outs
    return carry, jax.tree.map(lambda *leaves: np.stack(leaves), *outs)


def dynamic_slice_in_dim(a, start, size):
    start = np.clip(start, 0, len(a) - size)
    return a[start : start + size]


def dynamic_update_slice_in_dim(a, update, start, axis):
    start = np.clip(start, 0, len(a) - len(update))
    return np.concatenate([a[:start], update, a[start + len(update) :]], axis)


def eval_shape(f, x, *_):
    """Answer for functions that return what has the shape of their first argument, and more."""
    return x, None


def undrawn(masks, _):
    """Return kernels and biases of the shapes that `_initial` draws."""
    return masks, [np.zeros(len(mask)) for mask in masks]


def unbatched(f, **_):
    """Stand for `jax.vmap` of elementwise functions with the mapped axis last."""
    return f


JAX = SimpleNamespace(
    tree=jax.tree,
    lax=SimpleNamespace(
        scan=scan,
        dynamic_slice_in_dim=dynamic_slice_in_dim,
        dynamic_update_slice_in_dim=dynamic_update_slice_in_dim,
    ),
    vmap=unbatched,
    checkpoint=unbatched,
    eval_shape=eval_shape,
    ShapeDtypeStruct=jax.ShapeDtypeStruct,
)


def install(monkeypatch):
    """Let MADE, the affine univariate, two solvers and `Repeat` run on NumPy."""
    numerical = affine, bounds, compose, conditioner, lowering, made, masked, numerics
    for module in (*numerical, substitution):
        monkeypatch.setattr(module, "jnp", np)
    for module in (affine, compose, conditioner, made, masked, substitution):
        monkeypatch.setattr(module, "jax", JAX)
    for direction in ("forward_and_log_det", "inverse_and_log_det"):  # of the mapped axis, too
        unchecked = getattr(affine.Affine, direction).__wrapped__
        monkeypatch.setattr(affine.Affine, direction, unchecked)
    monkeypatch.setattr(made, "batch_last", lambda f: batch_last(f).fun)
    monkeypatch.setattr(made, "_initial", undrawn)
    monkeypatch.setattr(autoregressive, "solve", lambda solver, *args: solver.run(*args))
