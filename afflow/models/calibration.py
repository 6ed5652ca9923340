"""The choice of a solver for every autoregressive layer, by measurement."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_instance, check_instances, check_positive
from afflow._tools.calls import check_context, make_typed
from afflow._tools.modules import copy_module, replace_modules
from afflow._tools.shapes import check_size
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Repeat
from afflow.bijectors.solvers import Incremental, Jacobi, Solver
from afflow.core.bijector import map_events
from afflow.core.conditioner import Conditioner
from afflow.models.autoregressive import AutoregressiveModel
from afflow.models.columns import Columns
from afflow.models.flow import Flow
from afflow.models.reshaped import Reshaped

Model = TypeVar("Model", Flow, AutoregressiveModel, Reshaped)
_RUNS = 3  # the fastest of so many runs counts
_SHARE = 0.9  # of the time of the first candidate, which another one must stay below


def calibrate(
    model: Model,
    key: jax.Array,
    *,
    context: jax.Array | None = None,
    num_samples: int = 64,
    candidates: Sequence[Solver] | None = None,
    tol: float = 1e-4,
) -> Model:
    """Return the model with the fastest solver for each autoregressive layer, on this device.

    Every layer maps one batch of events by every solver in turn. The fastest solver is kept, or the
    first candidate unless another one is a tenth faster. The events of a layer are the events that
    reach the layer when the flow samples. Layers of one flow differ: a layer with weak couplings
    needs few sweeps of `Jacobi`. Call the function after training, with as many samples as are
    drawn at a time. A saved model keeps its solvers.

    A `Repeat` has one solver for all copies. If its copies differ in their fastest solvers, the
    result has a `Chain` of the copies, which takes longer to compile.

    Args:
        model: a flow, or an autoregressive density model; it is not changed.
        key: a PRNG key for the events.
        context: contexts `(num_samples, *context_shape)`, or one context, for a conditional model.
        num_samples: the number of events in the batch.
        candidates: the solvers to try. By default `Incremental()`, `Jacobi()` and, for conditioners
            that read many tokens in one pass, `Jacobi` with blocks of a half, a quarter and an
            eighth of the tokens.
        tol: a solver whose result differs from the result of the first candidate by more than
            `tol * (1 + |x|)` is not taken.

    Raises:
        ValueError: if the model has no autoregressive layer that `Bijector.walk` reaches, or for a
            context of another shape.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.maf(3, num_layers=2, hidden=(4,), rngs=nnx.Rngs(0))
        >>> flow = afflow.calibrate(flow, jax.random.key(0), candidates=[afflow.Jacobi()])
        >>> flow.bijector.bijectors[0].bijectors[1].solver
        Jacobi()
    """
    check_instance("model", model, (Flow, AutoregressiveModel, Reshaped))
    check_size("num_samples", num_samples)
    check_positive(tol=tol)
    if candidates is not None:
        check_instances("candidates", candidates, Solver)
    context = check_context(model, context)
    if context is not None:
        context = jnp.broadcast_to(context, (num_samples, *cast(Any, model).context_shape))
    batch, trial = _Batch(make_typed(key), num_samples, context), _Trial(candidates, tol)
    if isinstance(model, Flow):
        return _calibrate_flow(model, batch, trial)
    return replace_modules(
        model, AutoregressiveModel, lambda part: _calibrate_model(part, batch, trial)
    )


class _Batch(NamedTuple):
    """The events of a calibration, before they are drawn."""

    key: jax.Array
    size: int
    context: jax.Array | None


@dataclass(frozen=True)
class _Trial:
    """The solvers to try, and the tolerance of their results."""

    candidates: Sequence[Solver] | None
    tol: float

    def choose(self, conditioner: Conditioner, run: Callable[[Solver], Any]) -> Solver:
        """Return the fastest solver whose result is right; `run(solver)` returns the result."""
        best, *others = self.candidates or _list_candidates(conditioner)
        expected = run(best)  # the first run compiles
        least = _SHARE * _measure(partial(run, best))
        for solver in others:
            is_right = self._is_right(run(solver), expected)
            if is_right and (seconds := _measure(partial(run, solver))) < least:
                best, least = solver, seconds
        return best

    def _is_right(self, found, expected):
        return np.allclose(found, expected, self.tol, self.tol)


def _list_candidates(conditioner: Conditioner) -> list[Solver]:
    blocks = [conditioner.event_shape[0] // num for num in (2, 4, 8)]
    blocks = [size for size in blocks if size > 1 and conditioner.reads_at_once]
    return [Incremental(), Jacobi(), *(Jacobi(block=size) for size in blocks)]


def _measure(run: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of some runs."""
    seconds = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _calibrate_flow(flow: Flow, batch: _Batch, trial: _Trial) -> Flow:
    """Return the flow with a solver for each layer that noise reaches on the way to data."""
    written, solvers = replace_modules(flow, Repeat, Repeat.to_chain), []

    def visit(layer, inputs, context, *, forward):
        if isinstance(layer, MaskedAutoregressive):
            inputs = inputs if forward else map_events(layer, inputs, context)

            def run(solver):
                return map_events(copy_module(layer, solver=solver), inputs, context, forward=True)

            layer.solver = trial.choose(layer.conditioner, run)
            solvers.append(layer.solver)

    keys = jax.random.split(batch.key, batch.size)
    z = _draw(written.base, keys, batch.context)
    rows = written.bijector
    bijector = rows.bijector if isinstance(rows, Columns) else rows  # origins are not needed
    bijector.walk(z, batch.context, visit, forward=True)
    if not solvers:
        raise ValueError(f"Expected a flow with autoregressive layers, got {flow}.")
    if len(set(solvers)) > 1:
        return written
    return replace_modules(
        flow, MaskedAutoregressive, lambda layer: copy_module(layer, solver=solvers[0])
    )


def _calibrate_model(
    model: AutoregressiveModel, batch: _Batch, trial: _Trial
) -> AutoregressiveModel:
    """Return a density model with the solver that draws its samples fastest."""
    shape = batch.size if batch.context is None else ()

    def run(solver):
        return copy_module(model, solver=solver).sample(batch.key, shape, batch.context)

    return copy_module(model, solver=trial.choose(model.conditioner, run))


@jax.jit
def _draw(base, keys, context):
    return jax.vmap(base.sample, in_axes=(0, None if context is None else 0))(keys, context)
