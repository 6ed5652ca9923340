"""Solvers for the serial direction, and its derivative by the implicit function theorem."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from afflow.conditioners.conditioner import Conditioner, Emit


class Solver(ABC):
    """How to run `x[t], aux[t] = emit(inputs[t], params[t])` where `params[t]` needs `x[:t]`.

    Solvers are hashable values without parameters, passed as `solver=`.
    """

    @abstractmethod
    def run(
        self, conditioner: Conditioner, emit: Emit, inputs: Any, context: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        """Return `x` `(D,)` and `aux`, a pytree of `(D, ...)`."""


@dataclass(frozen=True)
class Incremental(Solver):
    """One step of the conditioner a coordinate: about the work of one pass for MADE."""

    def run(self, conditioner, emit, inputs, context):
        return conditioner.decode(emit, inputs, context)


@dataclass(frozen=True)
class Sequential(Solver):
    """One full pass of the conditioner a coordinate: `D` passes, the reference."""

    def run(self, conditioner, emit, inputs, context):
        return _FullPasses(conditioner).decode(emit, inputs, context)


class _FullPasses(Conditioner):
    """A conditioner without its shortcuts."""

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
    r"""Run `solver`, with derivatives that do not depend on how it found the solution.

    The solution satisfies $x = E(z, C(x))$ with $C$ the conditioner and $E$ the emission
    of all coordinates, so its tangent satisfies the triangular system

    $$(I - \partial_p E\, \partial_x C)\, \dot x = \dot E + \partial_p E\, \dot C,$$

    the right-hand side being the tangent at fixed $x$. `lax.custom_linear_solve` solves it,
    and for reverse mode its transpose: nothing is kept of the serial loop.
    """
    return solver.run(conditioner, emit, inputs, context)


@solve.defjvp
def _solve_jvp(solver, primals, tangents):
    conditioner, emit, inputs, context = primals
    d_conditioner, d_emit, d_inputs, d_context = tangents
    x, aux = solve(solver, conditioner, emit, inputs, context)

    def parameters(conditioner, context):
        return conditioner(x, context)

    params, d_params = jax.jvp(parameters, (conditioner, context), (d_conditioner, d_context))
    _, (dx_fixed, _) = jax.jvp(_emit_all, (emit, inputs, params), (d_emit, d_inputs, d_params))
    _, through_conditioner = jax.linearize(lambda x: conditioner(x, context), x)
    _, through_emit = jax.linearize(lambda params: _emit_all(emit, inputs, params), params)

    def feedback(dx):
        return through_emit(through_conditioner(dx))[0]

    dx = solve_unit_triangular(feedback, dx_fixed)
    d_params += through_conditioner(dx)
    _, (dx, d_aux) = jax.jvp(_emit_all, (emit, inputs, params), (d_emit, d_inputs, d_params))
    return (x, aux), (dx, d_aux)


def _emit_all(emit, inputs, params):
    return jax.vmap(emit)(inputs, params)


def solve_unit_triangular(feedback, b: jax.Array) -> jax.Array:
    """Solve `x - feedback(x) = b`, where `feedback` is linear and strictly triangular.

    The Neumann series ends after at most `len(b)` terms, and sooner where the coupling
    is weak: it stops at the first sum that one more term leaves unchanged.
    """

    def iterate(linear, b):
        def advance(state):
            _, x, n = state
            return x, b + linear(x), n + 1

        def unfinished(state):
            x_prev, x, n = state
            return (n < len(b)) & jnp.any(x_prev != x)

        return jax.lax.while_loop(unfinished, advance, (jnp.zeros_like(b), b, 0))[1]

    def residual(x):
        return x - feedback(x)

    def solver(matvec, b):
        return iterate(lambda x: x - matvec(x), b)

    return jax.lax.custom_linear_solve(residual, b, solver, solver)
