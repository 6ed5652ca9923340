"""MADE over a grid of widths, depths and kinds, and two solvers against each other.

The whole grid runs on NumPy. A part of the grid, with varying depth and kind, also runs on JAX.
"""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import numpy_backend
import pytest
from flax import nnx
from registry import cast, randomize

import afflow

DIMS = range(1, 10)
GRID = [(dim, width) for dim in DIMS for width in range(1, 3 * dim + 1)]
DEPTHS = [(1, False), (2, False), (3, False), (4, False), (3, True), (5, True)]  # residual?
KINDS = [(*depth, context_dim) for depth, context_dim in product(DEPTHS, (0, 2))]
INCREMENTAL, SEQUENTIAL = afflow.Incremental(), afflow.FullPasses()


def build(dim, width, depth, residual, context_dim):
    """Return a MADE with random weights."""
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
    """Check that the Jacobian is zero on and above the diagonal, and nonzero below."""
    (dim,) = made.event_shape
    context = None if made.context_shape is None else jnp.ones(made.context_shape)
    x = jnp.linspace(-1, 1, dim)
    jacobian = np.asarray(jax.jit(jax.jacfwd(lambda x: made(x, context)))(x))
    rows, _, cols = np.indices(jacobian.shape)
    assert (jacobian[cols >= rows] == 0).all()
    assert (jacobian[cols < rows] != 0).all()


def check_solvers(made):
    """Check `Incremental` against `FullPasses`, in both float types, alone and in a `Repeat`."""
    (dim,) = made.event_shape
    z = jax.random.normal(jax.random.key(0), (3, dim))
    shape = made.context_shape
    context = None if shape is None else jax.random.normal(jax.random.key(1), (3, *shape))

    @jax.jit
    def both(made, z, context):
        def layer(solver):
            return afflow.MaskedAutoregressive(made, afflow.Affine(), solver)

        def run(z, context):
            fast, slow = layer(afflow.Incremental()), layer(afflow.FullPasses())
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


@pytest.mark.parametrize(("dim", "width"), GRID[::9])
def test_on_jax(dim, width):
    number = GRID.index((dim, width)) // 9
    made = build(dim, width, *KINDS[number % len(KINDS)])
    check_masks(made)
    check_solvers(made)


def check_dependence(made, context):
    """Check that row `t` changes with every `x[i]` for `i < t`, and with no other input."""
    (dim,) = made.event_shape
    x = np.linspace(-1, 1, dim)
    rows = made(x, context)
    for i in range(dim):
        moved = made(np.where(np.arange(dim) == i, 0.3, x), context) != rows
        assert not moved[: i + 1].any()
        assert moved[i + 1 :].all()


def check_sweeps(made, context):
    """Check `Incremental` against `FullPasses` on NumPy, alone and in a `Repeat`."""
    z = np.linspace(-1, 1, *made.event_shape)
    slow, fast = (
        afflow.MaskedAutoregressive(made, afflow.Affine(), solver)
        for solver in (SEQUENTIAL, INCREMENTAL)
    )
    layers = slow, fast, afflow.Repeat(lambda rngs: fast, 2, rngs=nnx.Rngs(0))
    for dtype, tol in ((np.float64, 1e-11), (np.float32, 1e-5)):
        arguments = jax.tree.map(lambda a, dtype=dtype: a.astype(dtype), (layers, z, context))
        for value, expected in decode(*arguments):
            assert value.dtype == dtype
            error = np.abs(value - expected) / np.maximum(1, np.abs(expected))
            np.testing.assert_array_less(error, tol)


def decode(layers, z, context):
    """Return pairs of results that must be equal."""
    slow, fast, repeated = layers
    once, log_det = slow.forward_and_log_det(z, context)
    twice, more = slow.forward_and_log_det(once, context)
    x, fast_log_det = fast.forward_and_log_det(z, context)
    y, both_log_dets = repeated.forward_and_log_det(z, context)
    return (x, once), (fast_log_det, log_det), (y, twice), (both_log_dets, log_det + more)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", DIMS)
def test_whole_grid(dim, kind, monkeypatch):
    numpy_backend.install(monkeypatch)
    depth, residual, context_dim = kind
    context = np.linspace(-1, 1, context_dim) if context_dim else None
    options = {"residual": residual, "context_dim": context_dim, "activation": np.tanh}
    rng = np.random.default_rng(0)
    for width in range(1, 3 * dim + 1):
        made = afflow.MADE(dim, 2, (width,) * depth, **options, rngs=nnx.Rngs(0))
        made = jax.tree.map(lambda a: rng.normal(0, 0.3, a.shape), made)
        check_dependence(made, context)
        check_sweeps(made, context)


@pytest.mark.parametrize("width", [1, 2, 5, 8, 11, 40])
@pytest.mark.parametrize("dim", [2, 6, 9])
def test_slots_are_balanced(dim, width):
    made = afflow.MADE(dim, 1, (width,), rngs=nnx.Rngs(0))
    (_, slots), _ = made.connections()[:2]
    counts = np.bincount(slots, minlength=dim)[1:]
    assert counts.max() - counts.min() <= 1
    assert (np.diff(slots) >= 0).all()
    assert width < dim - 1 or (np.diff(counts) <= 0).all()  # fuller slots come first


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (((1, 2),), r"widths \(3,\), got \(2,\)"),
        (((1, 2, 1),), r"increasing slots from 0 to 3, got \(1, 2, 1\)"),
        (((1, 2, 4),), r"from 0 to 3, got \(1, 2, 4\)"),
    ],
)
def test_wirings_fit_the_hidden_layers(slots, message):
    wiring = afflow.conditioners.Wiring(slots)
    with pytest.raises(ValueError, match=message):
        afflow.MADE(4, 1, (3,), wiring=wiring, rngs=nnx.Rngs(0))


def test_wiring_without_activations_is_linear():
    wiring = afflow.conditioners.Wiring(((1, 2, 3), (1, 1, 3)), linear=(1, 2))
    made = randomize(afflow.MADE(4, 1, (3, 3), wiring=wiring, rngs=nnx.Rngs(0)))
    x = jnp.arange(4.0)
    np.testing.assert_allclose(made(x) - made(-x), 2 * (made(x) - made(0 * x)), atol=1e-12)
    assert made.connections()[1][1].tolist() == [1, 1, 3]
