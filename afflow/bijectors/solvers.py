"""Solvers for the serial direction, with derivatives by the implicit function theorem."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from afflow._tools.lowering import use_float32_products
from afflow.core.conditioner import Conditioner, Emit


class Solver(ABC):
    """A way to run `x[t], aux[t] = emit(inputs[t], params[t])`, where `params[t]` needs `x[:t]`.

    Solvers are hashable values without parameters, passed as `solver=`. The derivatives of
    a solution do not depend on the solver.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> from jax.tree_util import Partial
        >>> made = afflow.MADE(3, 2, rngs=nnx.Rngs(0))
        >>> shift = Partial(lambda z, params: (z + params[0], params[1]))
        >>> x, aux = afflow.FullPasses().run(made, shift, jnp.arange(3.0), None)
        >>> x.tolist()
        [0.0, 1.0, 2.0]
    """

    @abstractmethod
    def run(
        self, conditioner: Conditioner, emit: Emit, inputs: Any, context: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        """Return `x` `(D,)` and `aux`, a pytree of `(D, ...)`."""


@dataclass(frozen=True)
class Incremental(Solver):
    """One step of the conditioner per coordinate: for a MADE, about the work of one pass.

    A conditioner that overrides neither `step` nor `decode` would make a full pass in each step.
    `Jacobi()` runs such a conditioner instead, in at most `D` passes and often in a few.

    On an NVIDIA GPU all steps of a MADE run in one kernel, if the kernel can compute the network
    and the univariate. Elsewhere each step is a small matrix product.

    Args:
        kernel: `True` to insist on the kernel, `False` to do without. Without a GPU the kernel is
            interpreted, which is slow. By default the kernel runs if it is expected to be faster.
            A triple also insists, and sets the tiling: events of a program, units of a block,
            warps.

    Raises:
        ValueError: at run time, if `kernel` insists and the conditioner is not a `MADE`, or the
            kernel cannot compute the network or the univariate.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> afflow.MADE(3, 2, rngs=nnx.Rngs(0)).is_incremental
        True
    """

    kernel: bool | tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return "Incremental()" if self.kernel is None else f"Incremental(kernel={self.kernel})"

    def run(self, conditioner, emit, inputs, context):
        if conditioner.has_kernel:
            made: Any = conditioner
            return made.decode(emit, inputs, context, kernel=self.kernel)
        if self.kernel:
            raise ValueError(f"Expected a MADE for the kernel, got {type(conditioner).__name__}.")
        if conditioner.is_incremental:
            return conditioner.decode(emit, inputs, context)
        return Jacobi().run(conditioner, emit, inputs, context)


@dataclass(frozen=True)
class FullPasses(Solver):
    """One full pass of the conditioner per coordinate: `D` passes, the reference solver."""

    def run(self, conditioner, emit, inputs, context):
        return _WithoutSteps(conditioner).decode(emit, inputs, context)


@dataclass(frozen=True)
class Jacobi(Solver):
    r"""Fixed-point sweeps of full passes, $x \leftarrow E(z, C(x))$, until $x$ settles.

    After `k` sweeps the first `k` coordinates are exact, so `D` sweeps always suffice. If the
    coupling is weak, a few suffice.

    Song et al. 2021, arXiv:2002.03629.

    Args:
        tol: the sweeps end when no coordinate moves by more than `tol * (1 + |x|)`; by default
            eight times the rounding error of the float type.
        max_steps: the most sweeps; by default `D`. An event that has not settled by then is
            returned as NaN, never as an approximation.
    """

    tol: float | None = None
    max_steps: int | None = None

    def run(self, conditioner, emit, inputs, context):
        x, aux, _ = self.run_and_count(conditioner, emit, inputs, context)
        return x, aux

    def run_and_count(self, conditioner, emit, inputs, context) -> tuple[jax.Array, Any, Any]:
        """Return `x` and `aux` as `run` does, and the number of sweeps."""
        dim = conditioner.event_shape[0]

        def sweep(x):
            return jax.vmap(emit)(inputs, conditioner(x, context))

        def settled(x, previous):
            if not jnp.issubdtype(x.dtype, jnp.floating):
                return jnp.all(x == previous)
            tol = 8 * jnp.finfo(x.dtype).eps if self.tol is None else self.tol
            return jnp.all(jnp.abs(x - previous) <= tol * (1 + jnp.abs(x)))

        def advance(state):
            x, _, _, count = state
            new, aux = sweep(x)
            return new, aux, settled(new, x), count + 1

        def unfinished(state):
            _, _, done, count = state
            return ~done & (count < min(dim, self.max_steps or dim))

        dtype = jax.tree.leaves(inputs)[0].dtype
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(float)
        start = jax.eval_shape(sweep, jax.ShapeDtypeStruct(conditioner.event_shape, dtype))
        start = jax.eval_shape(sweep, start[0])
        x, aux = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), start)
        x, aux, done, count = jax.lax.while_loop(
            unfinished, advance, (x, aux, jnp.zeros((), bool), 0)
        )
        if (self.max_steps or dim) < dim:
            exact = done | (count >= dim)
            x, aux = jax.tree.map(lambda leaf: jnp.where(exact, leaf, jnp.nan), (x, aux))
        return x, aux, count


class _WithoutSteps(Conditioner):
    """A conditioner that calls another and has the default `step` and `decode`."""

    def __init__(self, conditioner: Conditioner):
        self.conditioner = conditioner
        self.event_shape = conditioner.event_shape
        self.context_shape = conditioner.context_shape
        self.num_params = conditioner.num_params

    def __call__(self, x, context=None):
        return self.conditioner(x, context)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def solve(
    solver: Solver, conditioner: Conditioner, emit: Emit, inputs: Any, context: jax.Array | None
) -> tuple[jax.Array, Any]:
    r"""Run `solver`, with derivatives that do not depend on the solver.

    `emit` emits one coordinate of a token. The solution satisfies $(x, a) = E(z, C(x))$, where $C$
    is the conditioner and $E$ the emission of all coordinates. Its tangent therefore satisfies a
    triangular system,

    $$(\dot x, \dot a) = \dot E + \partial_p E\, C'(x)\, \dot x,$$

    where $\dot E$ is the tangent at fixed $x$. `lax.custom_linear_solve` solves this system, and
    its transpose for reverse mode. Reverse mode thus keeps nothing of the serial loop.
    """
    return solver.run(conditioner, _over_token(emit, conditioner), inputs, context)


def _over_token(emit: Emit, conditioner: Conditioner) -> Emit:
    """Return the emission of a whole token from the emission of one coordinate."""
    token = conditioner.event_shape[1:]
    return Partial(partial(_emit_token, token), emit) if token else emit


def _emit_token(token, emit, inputs, params):
    for _ in token:
        emit = jax.vmap(emit)
    return emit(inputs, params.reshape(*token, -1))


@solve.defjvp
@use_float32_products()
def _solve_jvp(solver, primals, tangents):
    conditioner, emit, inputs, context = primals
    d_conditioner, d_emit, d_inputs, d_context = tangents
    x, aux = solve(solver, conditioner, emit, inputs, context)
    # With the checkpoint, reverse mode keeps x for each layer of a deep flow, not hidden units.
    params, d_params = jax.jvp(
        jax.checkpoint(lambda conditioner, context: conditioner(x, context)),
        (conditioner, context),
        (d_conditioner, d_context),
    )
    shape = (*conditioner.event_shape, -1)  # (T, *token, P)
    params, d_params = params.reshape(shape), d_params.reshape(shape)
    emit_all, gains_of = lambda emit, z, p: emit(z, p), jax.jacrev(emit, argnums=1)
    for _ in conditioner.event_shape:
        emit_all, gains_of = jax.vmap(emit_all, in_axes=(None, 0, 0)), jax.vmap(gains_of)
    _, fixed = jax.jvp(emit_all, (emit, inputs, params), (d_emit, d_inputs, d_params))
    fixed, unstack = _stack(fixed)  # (1 + A, T, *token): x, then each leaf of aux
    gains, _ = _stack(gains_of(inputs, params))  # (1 + A, T, *token, P)

    def feedback(v):
        _, dp = jax.jvp(lambda x: conditioner(x, context), (x,), (v,))
        return (gains * dp.reshape(1, *params.shape)).sum(-1)

    def tangent(_, b):
        v = conditioner.solve_tangent(x, context, gains[0], b[0])
        return b + feedback(v)

    def cotangent(_, b):
        source = (gains[1:] * b[1:, ..., None]).sum(0)
        v = conditioner.solve_cotangent(x, context, gains[0], source, b[0])
        return b.at[0].set(v)

    out = jax.lax.custom_linear_solve(lambda out: out - feedback(out[0]), fixed, tangent, cotangent)
    return (x, aux), unstack(out)


def _stack(tree: Any) -> tuple[jax.Array, Callable[[jax.Array], Any]]:
    """Stack the leaves of a tree; return the stack, and the function that unstacks."""
    leaves, structure = jax.tree.flatten(tree)
    return jnp.stack(leaves), lambda stacked: jax.tree.unflatten(structure, list(stacked))
