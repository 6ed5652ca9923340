"""Continuous normalizing flows: the map is the solution of an ordinary differential equation."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.calls import make_typed
from afflow._tools.constants import Constant
from afflow._tools.extras import import_extra
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_shape, check_size, check_sizes
from afflow.core.bijector import Bijector, of_one_event

Linear = Callable[[jax.Array], jax.Array]


class VectorField(Outlined, nnx.Module):
    """The velocity $g(t, x, h)$ of one event at time `t`, from 0 to 1.

    A subclass sets `event_shape` and `context_shape` (`None`: takes no context). The velocity
    must be smooth in `x`, so prefer `tanh` to `relu`.
    """

    event_shape: Shape
    context_shape: Shape | None

    @abstractmethod
    def __call__(self, t: jax.Array, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the velocity (event_shape) of `x` (event_shape) at time `t` (scalar)."""


class MLPField(VectorField):
    """A multilayer perceptron on `(t, x, context)` as a vector field, zero at the start.

    Args:
        dim: number of coordinates `D`.
        hidden: widths of the hidden layers.
        context_dim: length of the context vector; 0 for none.
        activation: a smooth nonlinearity.
        rngs: its `params` stream draws the initial weights.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> field = afflow.bijectors.MLPField(2, rngs=nnx.Rngs(0))
        >>> field(jnp.array(0.5), jnp.ones(2)).tolist()
        [0.0, 0.0]
    """

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
        rngs: nnx.Rngs,
    ):
        check_sizes(dim, 1, hidden, context_dim)
        self.event_shape = (dim,)
        self.context_shape = (context_dim,) if context_dim else None
        self.activation = activation
        widths = (1 + dim + context_dim, *hidden)
        pairs = zip(widths[:-1], hidden, strict=True)
        self.layers = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in pairs])
        self.last = nnx.Linear(
            widths[-1], dim, kernel_init=nnx.initializers.zeros_init(), rngs=rngs
        )

    def __call__(self, t, x, context=None):
        parts = [t[None], x] if self.context_shape is None else [t[None], x, context]
        h = jnp.concatenate(parts)
        for layer in self.layers:
            h = self.activation(layer(h))
        return self.last(h)


class Trace(ABC):
    """A method to compute the trace of a Jacobian from its products with vectors."""

    @abstractmethod
    def __call__(self, jvp: Linear, x: jax.Array) -> jax.Array:
        """Return the trace (scalar) of `jvp`, a linear map of arrays like `x`."""


@dataclass(frozen=True)
class ExactTrace(Trace):
    r"""The sum of the diagonal, $\sum_i e_i^\top J e_i$, by `D` products."""

    def __call__(self, jvp, x):
        basis = jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
        return _quadratic(jvp, basis).sum()


class Hutchinson(Outlined, nnx.Module, Trace):
    r"""An unbiased estimate, $\epsilon^\top J \epsilon$ with random signs, by one product.

    The signs are drawn once, at construction, so the log-determinant is a deterministic
    function. For an independent estimate, such as one for each step of training, build another
    `Hutchinson` with another key.

    Grathwohl et al. 2018, arXiv:1810.01367, section 3.1.

    Args:
        event_shape: the shape of an event, or the length of a vector.
        key: draws the signs.
        num_probes: number of estimates in the average.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> trace = afflow.bijectors.Hutchinson(3, jax.random.key(0))
        >>> trace(lambda v: 2 * v, jnp.zeros(3)).item()  # exact for diagonal Jacobians
        6.0
    """

    def __init__(self, event_shape: int | Shape, key: jax.Array, num_probes: int = 1):
        shape = check_shape("event_shape", event_shape)
        check_size("num_probes", num_probes)
        signs = jax.random.rademacher(make_typed(key), (num_probes, *shape), float)
        self.probes = Constant(signs)

    def __call__(self, jvp, x):
        return _quadratic(jvp, self.probes[...].astype(x.dtype)).mean()


class Continuous(Bijector):
    r"""The state at time 1 of a differential equation that starts at the noise.

    $$\dot x = g(t, x, h), \qquad
    \log|\det J| = \int_0^1 \mathrm{tr}\,\frac{\partial g}{\partial x}(t, x(t), h)\,dt.$$

    `inverse` integrates from 1 to 0. `diffrax` solves both, with steps chosen for each event, so
    the two directions undo each other to the tolerances only. An event that the solver cannot
    finish is returned as NaN, never as an approximation.

    Chen et al. 2018, arXiv:1806.07366; FFJORD with `Hutchinson` (Grathwohl et al. 2018,
    arXiv:1810.01367).

    Args:
        vector_field: the velocity $g$.
        trace: computes the trace: `ExactTrace()`, or a `Hutchinson` of the event's shape.
        rtol: relative tolerance of a step; at least 10 rounding errors of the float type.
        atol: absolute tolerance of a step; bounded below like `rtol`.
        max_steps: the most steps that one event may take.
        solver: a solver of `diffrax`; by default `Tsit5()`.
        adjoint: how `diffrax` differentiates. The default `RecursiveCheckpointAdjoint()` has
            reverse mode only; `DirectAdjoint()` has forward mode too.

    Raises:
        ImportError: if `diffrax` is not installed.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = afflow.bijectors.Continuous(afflow.bijectors.MLPField(2, rngs=nnx.Rngs(0)))
        >>> y, log_det = layer.forward_and_log_det(jnp.ones(2))
        >>> y.tolist(), log_det.item()
        ([1.0, 1.0], 0.0)
    """

    runs_in_shard_map = False  # diffrax computes with constants while it is traced

    def __init__(
        self,
        vector_field: VectorField,
        trace: Trace = ExactTrace(),
        *,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_steps: int = 4096,
        solver: Any = None,
        adjoint: Any = None,
    ):
        diffrax = _diffrax()
        self.vector_field = vector_field
        self.trace = trace
        self.rtol, self.atol, self.max_steps = float(rtol), float(atol), max_steps
        self.solver = diffrax.Tsit5() if solver is None else solver
        self.adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
        self.event_shape = vector_field.event_shape
        self.context_shape = vector_field.context_shape

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        return self._integrate(0, 1, x, context)

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        return self._integrate(1, 0, y, context)

    def _integrate(self, start, end, x, context):
        diffrax = _diffrax()
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(_velocity),
            self.solver,
            jnp.asarray(start, dtype),
            jnp.asarray(end, dtype),
            None,
            (x.astype(dtype), jnp.zeros((), dtype)),
            (self.vector_field, self.trace, context),
            stepsize_controller=self._controller(diffrax, dtype),
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=False,
        )
        done = diffrax.is_successful(solution.result)
        y, log_det = jax.tree.map(lambda a: jnp.where(done, a[0], jnp.nan), solution.ys)
        return y.astype(x.dtype), log_det

    def _controller(self, diffrax, dtype):
        eps = float(jnp.finfo(dtype).eps)
        rtol, atol = max(self.rtol, 10 * eps), max(self.atol, 10 * eps)
        least = eps**2  # the last step may be short by chance; only a step below `least` fails
        return diffrax.PIDController(rtol=rtol, atol=atol, dtmin=least, force_dtmin=False)


def _velocity(t: jax.Array, state: tuple[jax.Array, jax.Array], args: Any):
    """Return the derivatives in time of the event and of its log-determinant."""
    (x, _), (vector_field, trace, context) = state, args

    def g(x):
        return vector_field(t, x, context).astype(x.dtype)

    velocity, jvp = jax.linearize(g, x)
    return velocity, trace(jvp, x)


def _quadratic(jvp: Linear, vectors: jax.Array) -> jax.Array:
    """Return `v . J v` for each of the vectors `(N, *event_shape)`: `(N,)`."""
    return jax.vmap(lambda v: jnp.sum(v * jvp(v)))(vectors)


def _diffrax() -> Any:
    return import_extra("diffrax", "cnf", "solves continuous flows")
