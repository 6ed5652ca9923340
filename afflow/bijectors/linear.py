"""Linear maps of a vector: triangular, LU-factored, and orthogonal."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.scipy.linalg import solve_triangular
from jax.typing import ArrayLike

from afflow._tools.arguments import draw_key
from afflow._tools.arrays import cast, to_double
from afflow._tools.constants import Constant
from afflow._tools.numerics import total
from afflow._tools.positive import positive
from afflow._tools.shapes import check_size
from afflow.bijectors.permutations import Permutation, Shuffle
from afflow.core.bijector import Bijector, of_one_event

# GPUs round float32 operands to 10 bits by default. At that precision a product and a
# triangular solve would not be inverses of each other.
product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)


class Triangular(Bijector):
    r"""An affine map with a lower triangular matrix that has a positive diagonal.

    $$x = L y + b, \qquad \log|\det J_{f^{-1}}| = \sum_i \log L_{ii}.$$

    The density multiplies by $L$; sampling solves the triangular system. With a normal base the
    flow is a normal with any mean and covariance. The map starts as the identity.

    Args:
        dim: number of coordinates `D`.

    Raises:
        ValueError: if `dim < 1`.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> afflow.bijectors.Triangular(3).inverse(jnp.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, dim: int):
        check_size("dim", dim)
        self.matrix = nnx.Param(jnp.zeros((dim, dim)))  # the upper triangle is not read
        self.b = nnx.Param(jnp.zeros(dim))
        self.event_shape = (dim,)
        self.context_shape = None

    @property
    def is_triangular(self) -> bool:
        return True

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        lower, diagonal = self._factor(x)
        y = solve_triangular(lower, x - self.b[...].astype(x.dtype), lower=True)
        return y, -total(jnp.log(diagonal))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        lower, diagonal = self._factor(y)
        x = product(lower, y) + self.b[...].astype(y.dtype)
        return x, total(jnp.log(diagonal))

    def _factor(self, like):
        matrix = self.matrix[...]
        diagonal = positive(jnp.diag(matrix))
        lower = jnp.tril(matrix, -1) + jnp.diag(diagonal)
        return lower.astype(like.dtype), diagonal


class LU(Bijector):
    r"""An affine map whose matrix is a permutation times a triangular factorisation.

    $$x = P L U y + b, \qquad \log|\det J_{f^{-1}}| = \sum_i \log |U_{ii}|,$$

    where $L$ is lower triangular with unit diagonal. $U$ is upper triangular, and the signs of its
    diagonal are fixed. The density takes two products; sampling solves two triangular systems.
    The map starts as the permutation $P$, which is not trained.

    Kingma and Dhariwal 2018, arXiv:1807.03039, eq. 10.

    Args:
        dim: number of coordinates `D`.
        permutation: the $P$ of `D` coordinates; by default the identity. With `Shuffle`, each
            copy in a `Repeat` draws a separate order.
        signs: +1 or -1 for each entry of the diagonal of $U$, `(D,)`; by default all positive.

    Raises:
        ValueError: if `dim < 1`, or if `permutation` or `signs` do not fit.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> lu = afflow.LU(3, afflow.Reverse(3))
        >>> lu.inverse(jnp.array([1.0, 2.0, 3.0])).tolist()
        [3.0, 2.0, 1.0]
    """

    ABSENT = {"signs": None}  # in archives from before there were signs

    def __init__(
        self,
        dim: int,
        permutation: Permutation | Shuffle | None = None,
        *,
        signs: ArrayLike | None = None,
    ):
        check_size("dim", dim)
        self.permutation = permutation or Permutation(range(dim))
        if self.permutation.event_shape != (dim,):
            raise ValueError(
                f"Expected a permutation of {dim} coordinates, got one of "
                f"{self.permutation.event_shape[0]}."
            )
        self.signs = None if signs is None else Constant(_check_signs(dim, signs))
        self.factors = nnx.Param(jnp.zeros((dim, dim)))  # L below the diagonal, U on and above
        self.b = nnx.Param(jnp.zeros(dim))
        self.event_shape = (dim,)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        lower, upper, diagonal = self._factor(x)
        y = self.permutation.inverse(x - self.b[...].astype(x.dtype))
        y = solve_triangular(lower, y, lower=True, unit_diagonal=True)
        return solve_triangular(upper, y), -total(jnp.log(diagonal))

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        lower, upper, diagonal = self._factor(y)
        x = self.permutation.forward(product(lower, product(upper, y)))
        return x + self.b[...].astype(y.dtype), total(jnp.log(diagonal))

    def _factor(self, like):
        factors = self.factors[...]
        diagonal = positive(jnp.diag(factors))
        lower = jnp.tril(factors, -1) + jnp.eye(len(factors), dtype=factors.dtype)
        signed = diagonal if self.signs is None else diagonal * self.signs[...]
        upper = jnp.triu(factors, 1) + jnp.diag(signed)
        return lower.astype(like.dtype), upper.astype(like.dtype), diagonal


def _check_signs(dim: int, signs: ArrayLike) -> jax.Array:
    values = np.asarray(signs)
    if values.shape != (dim,) or not np.isin(values, (-1, 1)).all():
        raise ValueError(f"Expected signs ({dim},) of +1 and -1, got {signs}.")
    return jnp.asarray(values, float)


class Householder(Bijector):
    r"""A trainable orthogonal map: a product of reflections.

    $$y = H_1 \cdots H_K x, \qquad H_k = I - 2\,\frac{v_k v_k^\top}{\|v_k\|^2},
    \qquad \log|\det J| = 0.$$

    The vectors start in equal pairs, so an even number of reflections starts as the identity.
    With `D` reflections the map reaches every rotation if `D` is even, and every rotation
    followed by a reflection if `D` is odd.

    Tomczak and Welling 2016, arXiv:1611.09630.

    Args:
        dim: number of coordinates `D`.
        num_reflections: the number of reflections `K`.
        rngs: its `params` stream draws the vectors.

    Raises:
        ValueError: if a size is below one.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> rotation = afflow.bijectors.Householder(3, 2, rngs=nnx.Rngs(0))
        >>> jnp.allclose(rotation.forward(jnp.ones(3)), 1.0, atol=1e-5).item()
        True
    """

    def __init__(self, dim: int, num_reflections: int, *, rngs: nnx.Rngs):
        check_size("dim", dim)
        check_size("num_reflections", num_reflections)
        pairs = jax.random.normal(draw_key(rngs), ((num_reflections + 1) // 2, dim))
        self.v = nnx.Param(jnp.repeat(pairs, 2, axis=0)[:num_reflections])  # (K, D)
        self.event_shape = (dim,)
        self.context_shape = None

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return reflect(self.v[...].astype(x.dtype), x), jnp.zeros((), jnp.float32)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return reflect_back(self.v[...].astype(y.dtype), y), jnp.zeros((), jnp.float32)


class Rotation(Bijector):
    r"""A fixed orthogonal matrix: $y = Q x$, with log-determinant zero.

    Args:
        matrix: the orthogonal $Q$, `(D, D)`.

    Raises:
        ValueError: if `matrix` is not square and orthogonal.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> quarter = afflow.bijectors.Rotation(jnp.array([[0.0, -1.0], [1.0, 0.0]]))
        >>> quarter.forward(jnp.array([1.0, 0.0])).tolist()
        [0.0, 1.0]
    """

    def __init__(self, matrix: jax.Array):
        q = to_double("matrix", matrix)
        if q.ndim != 2 or q.shape[0] != q.shape[1] or q.size == 0:
            raise ValueError(f"Expected a square matrix, got matrix.shape {q.shape}.")
        error = np.abs(q @ q.T - np.eye(len(q))).max()
        if not error < 1e-4:
            raise ValueError(f"Expected an orthogonal matrix, got Q Q^T - I up to {error:.2g}.")
        self.matrix = Constant(cast("matrix", q))
        self.event_shape = (len(q),)
        self.context_shape = None

    @staticmethod
    def random(dim: int, key: jax.Array) -> "Rotation":
        """Draw a rotation of `dim` coordinates uniformly with `key`."""
        q = jax.random.orthogonal(key, dim)
        return Rotation(q.at[0].multiply(jnp.sign(jnp.linalg.det(q))))

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return product(self._as(x), x), jnp.zeros((), jnp.float32)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return product(self._as(y).T, y), jnp.zeros((), jnp.float32)

    def _as(self, x):
        return self.matrix[...].astype(x.dtype)


def reflect(v: jax.Array, x: jax.Array) -> jax.Array:
    r"""Return $H_1 \cdots H_K x$ for the reflections along the rows of `v` `(K, D)`.

    The product is $I - V^\top T^{-1} V$ with $T$ upper triangular, so there is no loop over `K`.
    """
    return x - product(v.T, solve_triangular(_interaction(v), product(v, x)))


def reflect_back(v: jax.Array, y: jax.Array) -> jax.Array:
    """Return the `x` with `y = reflect(v, x)`, by the transposed product."""
    return y - product(v.T, solve_triangular(_interaction(v), product(v, y), trans=1))


def _interaction(v: jax.Array) -> jax.Array:
    """Return the upper triangle of `v v^T` with its diagonal halved."""
    gram = product(v, v.T)
    return jnp.triu(gram, 1) + jnp.diag(jnp.diag(gram)) / 2
