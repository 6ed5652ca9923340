"""The product of rows with a kernel: values, derivatives and batches as those of `@`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from afflow._tools.lowering import use_float32_products
from afflow._tools.products import multiply_rows

KEYS = jax.random.split(jax.random.key(0), 2)
ROWS, KERNEL = jax.random.normal(KEYS[0], (5, 4, 3)), jax.random.normal(KEYS[1], (3, 2))
KERNELS = jnp.stack([KERNEL + i for i in range(5)])


def plain(rows, kernel):
    """Return the product that `multiply_rows` stands for."""
    return rows @ kernel


@pytest.mark.parametrize("shape", [(3,), (4, 3), (0, 3), (2, 4, 3)])
def test_rows_of_any_shape(shape):
    rows = jnp.arange(np.prod(shape), dtype=float).reshape(shape)
    found = multiply_rows(rows, KERNEL)
    assert found.shape == (*shape[:-1], 2)
    np.testing.assert_allclose(found, plain(rows, KERNEL), rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (1, None), ((0, 1))])
def test_batches(axes):
    kernels = KERNELS if axes[1] == 0 else jnp.moveaxis(KERNELS, 0, 1) if axes[1] == 1 else KERNEL
    rows = ROWS[0] if axes[0] is None else ROWS
    found, exact = (jax.vmap(f, axes)(rows, kernels) for f in (multiply_rows, plain))
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)


def test_an_empty_batch():
    """Check the shape of a product without elements, of which no axis can be inferred."""
    assert jax.vmap(multiply_rows, (0, None))(ROWS[:0], KERNEL).shape == (0, 4, 2)
    assert jax.vmap(multiply_rows, (0, None))(ROWS[:, :0], KERNEL).shape == (5, 0, 2)


def test_an_ensemble_of_batches():
    def both(f):
        return jax.vmap(jax.vmap(f, (0, None)), (None, 0))(ROWS, KERNELS)

    np.testing.assert_allclose(both(multiply_rows), both(plain), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("derivative", [jax.jacrev, jax.jacfwd, jax.hessian])
def test_derivatives(derivative):
    def loss(f):
        def of(rows, kernel):
            return jnp.tanh(jax.vmap(f, (0, None))(rows, kernel)).sum(-1)

        return derivative(of, (0, 1))(ROWS[:2], KERNEL)

    for found, exact in zip(*map(jax.tree.leaves, map(loss, (multiply_rows, plain))), strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-5)


def lowered_gradient(f):
    """Return the program of the gradient with respect to the kernel, over a batch."""
    gradient = jax.grad(lambda kernel: jnp.tanh(jax.vmap(f, (0, None))(ROWS, kernel)).sum())
    return jax.jit(gradient).lower(KERNEL).as_text()


def test_a_derivative_sums_over_one_axis():
    assert "contracting_dims = [0, 1] x [0, 1]" in lowered_gradient(plain)
    assert "contracting_dims = [0, 1]" not in lowered_gradient(multiply_rows)


def test_the_precision_is_the_one_of_the_trace():
    """Check that the products have the precision that held when the program was traced."""
    for gradient in (lowered_gradient(plain), lowered_gradient(multiply_rows)):
        assert "HIGHEST" not in gradient
    with use_float32_products():
        traced = jax.jit(jax.vmap(multiply_rows, (0, None))).trace(ROWS, KERNEL)
        gradient = jax.jit(jax.grad(lambda k: multiply_rows(ROWS[0], k).sum())).trace(KERNEL)
    for program in (traced, gradient):
        assert "HIGHEST" in program.lower().as_text()


def test_gradients_within_shard_map_sum_over_the_devices():
    """Check the types: a result that looks the same on all devices would not be summed."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("d",))
    seen = []

    def local(rows, kernel):
        seen.extend(
            jax.typeof(jax.vmap(f, (0, None))(rows, kernel)) for f in (multiply_rows, plain)
        )
        return jax.grad(lambda kernel: jax.vmap(multiply_rows, (0, None))(rows, kernel).sum())(
            kernel
        )

    sizes = {"in_specs": (PartitionSpec("d"), PartitionSpec()), "out_specs": PartitionSpec()}
    found = jax.jit(jax.shard_map(local, mesh=mesh, **sizes))(ROWS, KERNEL)
    np.testing.assert_allclose(found, jax.grad(lambda k: (ROWS @ k).sum())(KERNEL), rtol=1e-6)
    assert seen[0] == seen[1]
    assert "{V:d}" in str(seen[0])


def test_products_without_terms():
    assert multiply_rows(jnp.ones((5, 0)), jnp.ones((0, 4))).shape == (5, 4)
    assert jax.vmap(multiply_rows, (0, None))(jnp.ones((2, 5, 0)), jnp.ones((0, 4))).sum() == 0


def test_types_are_promoted():
    assert multiply_rows(ROWS[0].astype(jnp.bfloat16), KERNEL).dtype == KERNEL.dtype
    with jax.numpy_dtype_promotion("strict"), pytest.raises(Exception, match="promotion"):
        multiply_rows(ROWS[0].astype(jnp.bfloat16), KERNEL)
