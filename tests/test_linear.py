"""Linear, normalising, residual and image layers: what the shared tests do not see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import KEY, randomize

import afflow
from afflow.positive import positive, positive_inverse


def test_positive_inverts():
    s = jnp.linspace(-8, 50, 30)
    np.testing.assert_allclose(positive_inverse(positive(s)), s, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(positive(jnp.zeros(())), 1, rtol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: afflow.Triangular(4),
        lambda: afflow.LU(4),
        lambda: afflow.Householder(4, 2, rngs=nnx.Rngs(0)),
    ],
)
def test_linear_starts_as_the_identity(make):
    x = jax.random.normal(KEY, (4,))
    np.testing.assert_allclose(make().forward(x), x, rtol=1e-6)


def test_lu_is_its_factors():
    permutation = afflow.Permutation([2, 0, 3, 1])
    lu = randomize(afflow.LU(4, permutation))
    factors = np.array(lu.factors[...])
    lower = np.tril(factors, -1) + np.eye(4)
    upper = np.triu(factors, 1) + np.diag(positive(jnp.diag(factors)))
    matrix = np.eye(4)[list(permutation.order)] @ lower @ upper
    x = jax.random.normal(KEY, (4,))
    np.testing.assert_allclose(lu.inverse(x), matrix @ x + lu.b[...], rtol=1e-12)


def test_householder_is_the_product_of_its_reflections():
    layer = randomize(afflow.Householder(4, 3, rngs=nnx.Rngs(0)))
    product = np.eye(4)
    for v in np.asarray(layer.v[...]):
        product = product @ (np.eye(4) - 2 * np.outer(v, v) / (v @ v))
    matrix = jax.jacfwd(layer.forward)(jnp.zeros(4))
    np.testing.assert_allclose(matrix, product, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), -1, rtol=1e-12)


def test_householder_can_leave_the_identity():
    layer = afflow.Householder(3, 2, rngs=nnx.Rngs(0))
    grad = jax.grad(lambda layer: layer.forward(jnp.array([1.0, 2.0, 3.0]))[0])(layer)
    assert jnp.abs(grad.v[...]).max() > 0.01


def test_rotation_is_drawn_proper():
    for seed in range(4):
        q = afflow.Rotation.random(3, jax.random.key(seed)).matrix[...]
        np.testing.assert_allclose(np.linalg.det(q), 1, rtol=1e-6)


def test_linear_shapes_are_checked():
    with pytest.raises(ValueError, match="dim >= 1"):
        afflow.Triangular(0)
    with pytest.raises(ValueError, match="num_reflections >= 1"):
        afflow.Householder(2, 0, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 coordinates"):
        afflow.LU(3, afflow.Reverse(2))
    with pytest.raises(ValueError, match="orthogonal"):
        afflow.Rotation(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="square"):
        afflow.Rotation(jnp.ones((2, 3)))
