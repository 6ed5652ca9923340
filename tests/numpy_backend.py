"""A NumPy replacement for the parts of JAX that the serial direction of MADE uses.

NumPy compiles nothing. A grid of thousands of networks, each of which would take XLA a second to
compile, therefore runs in seconds. The arithmetic of slots is the same with either library.
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


def scan(f, carry, xs, *, length=None, reverse=False, unroll=False):
    """Run `jax.lax.scan` as a Python loop."""
    outs, length = [], length or len(jax.tree.leaves(xs)[0])
    for i in reversed(range(length)) if reverse else range(length):
        carry, out = f(carry, jax.tree.map(lambda a, i=i: a[i], xs))
        outs.append(out)
    outs = outs[::-1] if reverse else outs
    return carry, jax.tree.map(lambda *leaves: np.stack(leaves), *outs)


def dynamic_slice_in_dim(a, start, size):
    """Return a slice along the first axis, with `start` clipped as in JAX."""
    start = np.clip(start, 0, len(a) - size)
    return a[start : start + size]


def dynamic_update_slice_in_dim(a, update, start, axis):
    """Return `a` with `update` along the first axis, with `start` clipped as in JAX."""
    start = np.clip(start, 0, len(a) - len(update))
    return np.concatenate([a[:start], update, a[start + len(update) :]], axis)


def eval_shape(f, x, *_):
    """Return `(x, None)`, for functions whose first result has the shape of `x`."""
    return x, None


def undrawn(masks, _):
    """Return kernels and biases of the shapes that `_draw_initial` draws, without drawing."""
    return masks, [np.zeros(len(mask)) for mask in masks]


def unbatched(f, **_):
    """Return `f`, in place of `jax.vmap(f)` for an elementwise `f` with the mapped axis last."""
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
    """Make MADE, the affine univariate, two solvers and `Repeat` run on NumPy."""
    numerical = affine, bounds, compose, conditioner, lowering, made, masked, numerics
    for module in (*numerical, substitution):
        monkeypatch.setattr(module, "jnp", np)
    for module in (affine, compose, conditioner, made, masked, substitution):
        monkeypatch.setattr(module, "jax", JAX)
    # Without `jax.vmap`, arrays keep the mapped axis, and the check for a single event would fail.
    for direction in ("forward_and_log_det", "inverse_and_log_det"):
        unchecked = getattr(affine.Affine, direction).__wrapped__
        monkeypatch.setattr(affine.Affine, direction, unchecked)
    monkeypatch.setattr(made, "batch_last", lambda f: batch_last(f).fun)
    monkeypatch.setattr(made, "_draw_initial", undrawn)
    monkeypatch.setattr(autoregressive, "solve", lambda solver, *args: solver.run(*args))
