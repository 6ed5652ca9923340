"""MADE over a grid of every width, depth and kind, and its two solvers against each other."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import cast, randomize

import afflow

DIMS = range(1, 10)
GRID = [(dim, width) for dim in DIMS for width in range(1, 3 * dim + 1)]
KINDS = list(product((1, 2, 3, 4), (False, True), (0, 2)))  # depth, residual, context_dim


def build(dim, width, depth, residual, context_dim):
    """Return a MADE with random weights; residual networks have odd depths."""
    depth += residual and depth % 2 == 0
    made = afflow.MADE(
        dim,
        2,
        (width,) * depth,
        residual=residual,
        context_dim=context_dim,
        activation=jnp.tanh,
        rngs=nnx.Rngs(0),
    )
    return randomize(made)


def check_masks(made):
    """The Jacobian is exactly zero on and above the diagonal, and dense below it."""
    (dim,) = made.event_shape
    context = None if made.context_shape is None else jnp.ones(made.context_shape)
    x = jnp.linspace(-1, 1, dim)
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda x: made(x, context)))(x))
    rows, _, cols = np.indices(jacobian.shape)
    assert (jacobian[cols >= rows] == 0).all()
    assert (jacobian[cols < rows] != 0).all()


def check_solvers(made):
    """Incremental equals Sequential, in float64 and float32, by itself and in `Repeat`."""
    (dim,) = made.event_shape
    z = jax.random.normal(jax.random.key(0), (3, dim))
    shape = made.context_shape
    context = None if shape is None else jax.random.normal(jax.random.key(1), (3, *shape))

    @jax.jit
    def both(made, z, context):
        def layer(solver):
            return afflow.MaskedAutoregressive(made, afflow.Affine(), solver)

        def run(z, context):
            fast, slow = layer(afflow.Incremental()), layer(afflow.Sequential())
            repeated = afflow.Repeat(lambda rngs: fast, 2, rngs=nnx.Rngs(0))
            twice = slow.forward_and_log_det(slow.forward(z, context), context)
            return (
                (fast.forward_and_log_det(z, context), slow.forward_and_log_det(z, context)),
                (repeated.forward(z, context), twice[0]),
            )

        return jax.vmap(run, in_axes=(0, None if context is None else 0))(z, context)

    for dtype, tol in ((jnp.float64, 1e-11), (jnp.float32, 1e-5)):
        arguments = cast((made, z, context), dtype)
        for fast, slow in both(*arguments):
            for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(slow), strict=True):
                assert a.dtype == dtype
                scale = np.maximum(1, np.abs(b))
                np.testing.assert_array_less(np.abs(a - b) / scale, tol)


@pytest.mark.parametrize(("dim", "width"), GRID)
def test_masks(dim, width):
    number = GRID.index((dim, width))
    check_masks(build(dim, width, *KINDS[number % len(KINDS)]))


@pytest.mark.parametrize(("dim", "width"), GRID[::5])
def test_solvers_agree(dim, width):
    number = GRID.index((dim, width))
    check_solvers(build(dim, width, *KINDS[(number // 5) % len(KINDS)]))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("dim", "width"), GRID)
@pytest.mark.parametrize("kind", KINDS)
def test_every_mask(dim, width, kind):
    check_masks(build(dim, width, *kind))


@pytest.mark.exhaustive
@pytest.mark.parametrize(("dim", "width"), GRID)
@pytest.mark.parametrize("kind", KINDS)
def test_every_solver(dim, width, kind):
    check_solvers(build(dim, width, *kind))


@pytest.mark.parametrize("width", [1, 2, 5, 8, 11, 40])
@pytest.mark.parametrize("dim", [2, 6, 9])
def test_slots_are_balanced(dim, width):
    made = afflow.MADE(dim, 1, (width,), rngs=nnx.Rngs(0))
    (_, slots), _ = made._connections()[:2]
    counts = np.bincount(slots, minlength=dim)[1:]
    assert counts.max() - counts.min() <= 1
    assert (np.diff(slots) >= 0).all()
