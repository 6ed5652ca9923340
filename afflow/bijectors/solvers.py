"""Solvers for the serial direction, with derivatives that do not depend on the solver."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from afflow._tools.lowering import use_float32_products
from afflow._tools.shapes import check_size
from afflow.core.conditioner import Conditioner, Emit, Place, find_dtype


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

    def __repr__(self) -> str:
        settings = [f"{name}={value}" for name, value in vars(self).items() if value is not None]
        return f"{type(self).__name__}({', '.join(settings)})"

    @abstractmethod
    def run(
        self, conditioner: Conditioner, emit: Emit, inputs: Any, context: jax.Array | None
    ) -> tuple[jax.Array, Any]:
        """Return `x` `(D,)` and `aux`, a pytree of `(D, ...)`."""


@dataclass(frozen=True, repr=False)
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

    def run(self, conditioner, emit, inputs, context):
        if conditioner.has_kernel:
            made: Any = conditioner
            return made.decode(emit, inputs, context, kernel=self.kernel)
        if self.kernel:
            raise ValueError(f"Expected a MADE for the kernel, got {type(conditioner).__name__}.")
        if conditioner.is_incremental:
            return conditioner.decode(emit, inputs, context)
        return Jacobi().run(conditioner, emit, inputs, context)


@dataclass(frozen=True, repr=False)
class FullPasses(Solver):
    """One full pass of the conditioner per coordinate: `D` passes, the reference solver."""

    def run(self, conditioner, emit, inputs, context):
        return _WithoutSteps(conditioner).decode(emit, inputs, context)


@dataclass(frozen=True, repr=False)
class Jacobi(Solver):
    r"""Fixed-point sweeps of full passes, $x \leftarrow E(z, C(x))$, until $x$ settles.

    After `k` sweeps the first `k` coordinates are exact, so `D` sweeps always suffice. If the
    coupling is weak, a few suffice.

    With `block`, the tokens settle block after block, and the tokens of a block by sweeps (block
    Jacobi). A sweep then reads one block, after the cache of the blocks before. This takes a
    conditioner that reads many tokens in one pass, such as `Transformer`. Other conditioners take
    sweeps of full passes.

    In a density model each token is drawn with a fixed key, so the sweeps end at the tokens that
    the serial loop draws (predictive sampling, Wiggers and Hoogeboom 2020, arXiv:2002.09928).

    Song et al. 2021, arXiv:2002.03629.

    Args:
        tol: the sweeps end when no coordinate moves by more than `tol * (1 + |x|)`; by default
            eight times the rounding error of the float type.
        max_steps: the most sweeps of a block; by default its number of tokens. An event that has
            not settled by then is returned as NaN, never as an approximation. Samples of a discrete
            model are then floats.
        block: the number of tokens in a block; by default all.

    Raises:
        ValueError: if `block` or `max_steps` is not a positive whole number.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> sizes = {"width": 8, "num_layers": 1, "num_heads": 1}
        >>> network = afflow.conditioners.Transformer(6, 2, **sizes, rngs=nnx.Rngs(0))
        >>> layer = afflow.MaskedAutoregressive(network, afflow.Affine(), afflow.Jacobi(block=3))
        >>> layer.forward(jnp.ones(6)).tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    tol: float | None = None
    max_steps: int | None = None
    block: int | None = None

    def __post_init__(self):
        for name in ("max_steps", "block"):
            if (size := getattr(self, name)) is not None:
                check_size(name, size)

    def run(self, conditioner, emit, inputs, context):
        x, aux, _ = self.run_and_count(conditioner, emit, inputs, context)
        return x, aux

    def run_and_count(self, conditioner, emit, inputs, context) -> tuple[jax.Array, Any, Any]:
        """Return `x` and `aux` as `run` does, and the number of sweeps."""
        if self.block is None or not conditioner.reads_at_once:
            start = Place(jnp.zeros(conditioner.event_shape[1:], find_dtype(inputs)), 0, None)
            out, _, count = self._settle(
                lambda x, place: (conditioner(x, context), place), emit, inputs, start
            )
            return *out, count
        place, parts, total = conditioner.begin(context, find_dtype(inputs)), [], 0
        length = conditioner.event_shape[0]
        for lo in range(0, length, self.block):
            hi = min(lo + self.block, length)
            part = jax.tree.map(lambda leaf, lo=lo, hi=hi: leaf[lo:hi], inputs)
            place = place.resized(conditioner, hi)
            out, place, count = self._settle(conditioner.read, emit, part, place)
            parts.append(out)
            total += count
        x, aux = jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)
        return x, aux, total

    def _settle(self, read, emit, inputs, place):
        """Sweep the tokens of a block until they settle.

        Args:
            read: `read(x, place)`, which returns the parameters of the block and the place after.
            emit: emits one token.
            inputs: the inputs of the block.
            place: the place before the block.

        Returns:
            `x` and `aux` of the block, the place after, and the number of sweeps.
        """
        num = len(jax.tree.leaves(inputs)[0])
        most = min(num, self.max_steps or num)

        def sweep(x):
            params, after = read(x, place)
            return jax.vmap(emit)(inputs, params), after.cache

        def advance(state):
            (x, _), _, _, count = state
            out, cache = sweep(x)
            return out, cache, self._has_settled(out[0], x), count + 1

        def unfinished(state):
            _, _, done, count = state
            return ~done & (count < most)

        start = jax.ShapeDtypeStruct((num, *place.x_prev.shape), place.x_prev.dtype)
        for _ in range(2):  # the second sweep has the float type of the first one's result
            shapes = jax.eval_shape(sweep, start)
            start = shapes[0][0]
        (x, aux), cache = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        state = (_guess(inputs, x), aux), cache, jnp.zeros((), bool), 0
        (x, aux), cache, done, count = jax.lax.while_loop(unfinished, advance, state)
        if most < num:
            x, aux = jax.tree.map(lambda leaf: jnp.where(done, leaf, jnp.nan), (x, aux))
        return (x, aux), Place(x[-1], place.t + num, cache), count

    def _has_settled(self, x, previous):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return jnp.all(x == previous)
        tol = 8 * jnp.finfo(x.dtype).eps if self.tol is None else self.tol
        return jnp.all(jnp.abs(x - previous) <= tol * (1 + jnp.abs(x)))


def _guess(inputs: Any, zeros: jax.Array) -> jax.Array:
    """Return the start of the sweeps: the inputs, if they are numbers like `x`, or else zeros.

    Layers of deep flows are close to the identity, so that the inputs save a sweep.
    """
    leaves = jax.tree.leaves(inputs)
    alike = len(leaves) == 1 and leaves[0].shape == zeros.shape and leaves[0].dtype == zeros.dtype
    return leaves[0] if alike else zeros


class _WithoutSteps(Conditioner):
    """A conditioner that calls another and has the default `step` and `decode`."""

    def __init__(self, conditioner: Conditioner):
        self.conditioner = conditioner
        self.event_shape = conditioner.event_shape
        self.context_shape = conditioner.context_shape
        self.num_params = conditioner.num_params

    def __call__(self, x, context=None):
        return self.conditioner(x, context)


def solve(
    solver: Solver, conditioner: Conditioner, emit: Emit, inputs: Any, context: jax.Array | None
) -> tuple[jax.Array, Any]:
    """Run `solver`, with derivatives that do not depend on the solver.

    `emit` emits one coordinate of a token. A conditioner whose pass is a loop over its steps is
    differentiated through the loop, for the price of the derivative of a pass. Derivatives of all
    others come from the implicit function theorem.
    """
    if conditioner.is_serial and isinstance(solver, Incremental):
        return solver.run(conditioner, _over_token(emit, conditioner), inputs, context)
    return _solve_implicitly(solver, conditioner, emit, inputs, context)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _solve_implicitly(solver, conditioner, emit, inputs, context):
    r"""Run `solver`, with derivatives by the implicit function theorem.

    The solution satisfies $(x, a) = E(z, C(x))$, where $C$ is the conditioner and $E$ the emission
    of all coordinates. Its tangent therefore satisfies a triangular system,

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


@_solve_implicitly.defjvp
@use_float32_products()
def _solve_jvp(solver, primals, tangents):
    conditioner, emit, inputs, context = primals
    d_conditioner, d_emit, d_inputs, d_context = tangents
    x, aux = _solve_implicitly(solver, *primals)
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
