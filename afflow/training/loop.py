"""The training loop: compiled loops of optimizer steps on any loss, with or without data."""

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial, reduce
from itertools import repeat
from operator import add
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.tree_util import Partial

from afflow._tools.arguments import check_instance, check_instances, check_number
from afflow._tools.calls import make_typed
from afflow._tools.shapes import check_size
from afflow.training.callbacks import Callback, Epoch
from afflow.training.checkpoint import Checkpoint, digest, open_store
from afflow.training.history import History, NonFiniteLossError
from afflow.training.interrupt import interruptible
from afflow.training.optimizer import Optimizer, drop_schedule, make_optimizer
from afflow.training.pace import Pace
from afflow.training.placement import Placement, make_placement, on_mesh
from afflow.training.progress import make_progress_bar
from afflow.training.run import Run, State
from afflow.training.trainable import Trainable, make_mask, masked

Model = TypeVar("Model")
Loss = Callable[[Any, jax.Array, Any], jax.Array]
_STATISTICS = (nnx.BatchStat, nnx.RngState)  # state that a network changes in training
Batches = Callable[[int, int, int], Iterable[Any]]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["rest", "loss", "key"],
    meta_fields=["graph", "update", "accumulate", "ema", "placement"],
)
@dataclass(frozen=True)
class Step:
    """One step of the optimizer: a pytree, so that compiled functions take it as an argument."""

    graph: Any  # the structure of the model
    rest: Any  # the arrays of the model that no step changes
    loss: Partial
    key: jax.Array
    update: optax.TransformUpdateFn
    accumulate: int  # minibatches for each step of the optimizer
    ema: float | None
    placement: Placement

    def model(self, evaluated: tuple[Any, Any]) -> Any:
        """Return the model with these parameters and statistics."""
        return nnx.merge(self.graph, *evaluated, self.rest)

    def take(self, state: State, t: jax.Array, batch: Any) -> tuple[State, jax.Array]:
        """Return the state after step `t`, and the loss before it."""

        def loss_of(params, statistics):
            statistics = jax.tree.map(lambda leaf: leaf, statistics)  # in variables of this trace
            model = self.model((params, statistics))
            value = self.loss(model, jax.random.fold_in(self.key, t), batch)
            return value, nnx.state(model, _STATISTICS)  # the loss may have changed them

        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (value, statistics), grads = gradient(state.params, state.statistics)
        updates, memory = self.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if self.ema is not None:
            average = self._average(self.ema, t, average, params)
        return State(params, memory, average, statistics), value

    def _average(self, ema: float, t: jax.Array, average: Any, params: Any) -> Any:
        """Return the moving average after minibatch `t`. It moves when the optimizer steps.

        Equal values stay equal bit for bit, such as those of parameters that are not trained.
        """
        step = t // self.accumulate
        weight = 1 - jnp.minimum(ema, (step + 1) / (step + 10))
        weight = jnp.where((t + 1) % self.accumulate == 0, weight, 0.0)
        return jax.tree.map(lambda a, b: (a + weight * (b - a)).astype(b.dtype), average, params)


@dataclass(frozen=True)
class Program:
    """The settings of a run."""

    step: Step
    num_steps: int
    max_epochs: int
    chunk: int
    batches: Batches | None
    validate: Callable[[Any], Any] | None
    patience: int | None
    callbacks: tuple[Callback, ...]

    def fetched(self, evaluated: tuple[Any, Any]) -> Any:
        """Return the model with these parameters and statistics, on one device."""
        return self.step.placement.fetched(self.step.model(evaluated))

    def identity(self, run: Run) -> dict[str, str]:
        """Return digests of everything that decides the bits of a run with this start."""
        parts = {
            "model": (self.step.graph, self.step.rest, run.best),
            "loss or data": self.step.loss,
            "batches": self.batches,
            "validation": self.validate,
            "key": self.step.key,
            "optimizer": drop_schedule(run.state.optimizer),
            "accumulate": self.step.accumulate,
            "number of steps": (self.num_steps, self.chunk),
            "number of epochs": self.max_epochs,
            "patience": self.patience,
            "ema": self.step.ema,
        }
        return {name: digest(part) for name, part in parts.items()}

    def is_over(self, run: Run) -> bool:
        """Return whether the run has stopped, or all epochs are done."""
        return run.stopped or run.epoch >= self.max_epochs

    def stacks(self, run: Run) -> Iterable[Any]:
        """Return the stacked minibatches of the rest of the epoch."""
        if self.batches is None:
            return repeat(None, -(-(self.num_steps - run.step) // self.chunk))
        stacks = self.batches(run.epoch, run.step, self.chunk)
        return map(self.step.placement.stack, stacks)

    def failed(self, run: Run, train_loss: float, value: float | None) -> NonFiniteLossError:
        """Return the error for a loss that is not finite; it holds the best model so far."""
        history = run.history.after(train_loss, value)
        return NonFiniteLossError(run.epoch, self.fetched(run.best), history)


@on_mesh
def train(
    model: Model,
    loss: Loss,
    *,
    key: jax.Array,
    num_steps: int,
    max_epochs: int,
    batches: Batches | None = None,
    validate: Callable[[Model], Any] | None = None,
    patience: int | None = None,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: Optimizer | None = None,
    accumulate: int = 1,
    trainable: Trainable | None = None,
    ema: float | None = None,
    chunk: int | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Iterable[Callback] = (),
    mesh: Mesh | None = None,
    progress: bool = True,
    label: str = "",
) -> tuple[Model, History]:
    r"""Minimise a loss over a model's parameters; return the best model and its history.

    This is what `fit` and every other way to train is made of. The `nnx.Param` leaves of
    the model are trained, in compiled loops over many steps at a time. What the loss changes of
    `nnx.BatchStat` and `nnx.RngState` in the model goes on to the next step.

    Args:
        model: the module to start from; it is not changed.
        loss: `loss(model, key, batch)`, a scalar. As a `jax.tree_util.Partial` of a
            function and arrays (data, other modules) it compiles once for all their values.
        key: its children are the keys of the steps.
        num_steps: steps in an epoch, after which the model is validated.
        max_epochs: epochs to train for if not stopped early.
        batches: `batches(epoch, start, size)` yields the minibatches of an epoch from step
            `start` on, stacked by `size` along a new first axis (the last may be fewer).
            Without it `batch` is `None`.
        validate: returns the loss of a model by which the best is chosen and `patience`
            counted; without it the last model is returned.
        patience: epochs without a better validation loss before training stops.
        learning_rate: initial rate of the default optimizer: AdamW on gradients clipped
            to norm 5, with a cosine decay to zero over all steps.
        weight_decay: how much of a network's kernels the default optimizer takes away in a step,
            in units of the learning rate.
        optimizer: any optax optimizer in place of the default, or a function that makes
            one from the number of steps.
        accumulate: the number of minibatches whose mean gradient makes one step of the optimizer.
        trainable: train these parameters only: patterns of paths, `"bijector.bijectors.0.*"` say,
            or a function of a path that says whether it is trained. `paths_of(model)` lists the
            paths; each copy in a `Repeat` has its own.
        ema: validate and return an exponential moving average of the parameters with this
            decay, $\bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t) \theta_t$, which starts
            quickly: $d_t = \min(d, t / (t + 9))$ at step $t = 1, 2, \dots$
        chunk: the most steps in one compiled loop; by default the whole epoch, or the steps from
            one checkpoint to the next.
        checkpoint: go on from the latest checkpoint of this run, and write them.
        callbacks: called with an `Epoch` after each; training stops where one returns true.
        mesh: train on all its devices: the second axis of stacked minibatches is split over
            its axis `data`, matrices over an axis `model`, if it has one. The default is the mesh
            of `jax.set_mesh`, if its axes are `data` and perhaps `model`.
        progress: show a progress bar, if `tqdm` is installed.
        label: stands in front of the bar.

    Returns:
        The best model, and the `History` of its losses. Ctrl-C ends training after the
        current chunk, with the best so far and a warning.

    Raises:
        ValueError: for numbers out of range, or a checkpoint that is damaged or of another run.
        NonFiniteLossError: if the loss or a parameter turns infinite or NaN.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> def loss(flow, key, batch):  # -E[log q(x)] for x ~ N(3, 1), without data
        ...     return -flow.log_prob(3 + jax.random.normal(key, (64, 2))).mean()
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.Affine(), 2))
        >>> options = {"num_steps": 50, "max_epochs": 2, "learning_rate": 0.1, "progress": False}
        >>> flow, history = afflow.training.train(flow, loss, key=jax.random.key(0), **options)
        >>> history.train[1] < history.train[0]
        True
    """
    callbacks = tuple(callbacks) if isinstance(callbacks, Iterable) else callbacks
    check_instances("callbacks", callbacks, Callable)
    if checkpoint is not None:
        check_instance("checkpoint", checkpoint, Checkpoint)
    _check({"num_steps": num_steps, "max_epochs": max_epochs, "chunk": chunk}, ema)
    mask = {} if trainable is None else make_mask(model, trainable)
    graph, params, statistics, rest = nnx.split(model, _select_trained(mask), _STATISTICS, ...)
    if not jax.tree.leaves(params):
        raise ValueError(f"Expected a model with nnx.Param arrays to train, got none in {model!r}.")
    placement = make_placement(mesh)
    total = max_epochs * num_steps
    made = make_optimizer(total, optimizer, learning_rate, weight_decay, accumulate)
    chosen = masked(made, mask)
    program = Program(
        Step(
            graph,
            placement.everywhere(rest),
            placement.everywhere(loss if isinstance(loss, Partial) else Partial(loss)),
            make_typed(key),
            chosen.update,
            accumulate,
            ema,
            placement,
        ),
        num_steps,
        max_epochs,
        min(chunk or (checkpoint and checkpoint.steps) or num_steps, num_steps),
        batches,
        validate,
        patience,
        callbacks,
    )
    state = State(params, chosen.init(params), None if ema is None else params, statistics)
    start = Run(*placement.params((state, state.evaluated)))
    store = open_store(checkpoint, partial(program.identity, start))
    run = resumed = _own_state(store.latest(start))
    bar = make_progress_bar(total, resumed, label, show=progress)
    with interruptible() as interrupt, bar:
        bar.compiling()
        for run in _iterate_runs(program, resumed):
            bar.show(run)
            store.keep(run, is_last=program.is_over(run) or interrupt.pressed)
            if interrupt.pressed:
                warnings.warn(f"Interrupted in epoch {run.epoch}.", stacklevel=2)
                break
    return program.fetched(run.best if validate else run.state.evaluated), run.history


def _own_state(run: Run) -> Run:
    """Return the run with a copy of its state, whose memory the steps may then reuse."""
    return run._replace(state=_copy(run.state))


def _copy(tree: Any) -> Any:
    return jax.tree.map(jnp.copy, tree)


def _select_trained(mask: dict[tuple, Any]) -> Any:
    """Return the filter of the parameters that are trained, or some of whose copies are."""
    if not mask:
        return nnx.Param
    return nnx.All(nnx.Param, lambda path, _: bool(np.any(mask[path])))


def _iterate_runs(program: Program, run: Run) -> Iterator[Run]:
    """Yield the run every three seconds or so, and at the end of an epoch with its validation."""
    pace = Pace()
    while not program.is_over(run):
        start, done = time.perf_counter(), run.step
        for stack in program.stacks(run):
            for moved in _advance(program, run, stack, pace):
                run = moved
                if run.step < program.num_steps:
                    yield run
        speed = (run.step - done) / (time.perf_counter() - start)
        yield (run := _close(program, run, speed))


def _advance(program: Program, run: Run, stack: Any, pace: Pace) -> Iterator[Run]:
    """Yield the run after each part of a stack of minibatches."""
    size = min(program.chunk, program.num_steps - run.step)
    first, done = run.total, 0
    while done < size:
        steps, start = pace.choose(size - done), time.perf_counter()
        state, losses = _take(program.step, size, first, done, done + steps, run.state, stack)
        run = _move(program, run, state, np.asarray(losses, np.float64)[done : done + steps])
        pace.learn(steps, time.perf_counter() - start)
        done += steps
        yield run


def _move(program: Program, run: Run, state: State, losses: np.ndarray) -> Run:
    """Return the run after steps with these losses.

    The losses are added one by one, so that the sum does not depend on how many steps the program
    took at a time. Since Python 3.12 the built-in `sum` rounds only the result of a call.
    """
    moved = run.moved(state, len(losses), reduce(add, losses.tolist(), run.loss_sum))
    if not np.isfinite(moved.loss_sum):
        raise program.failed(run, moved.loss_sum / moved.step, None)
    return moved


def _close(program: Program, run: Run, speed: float) -> Run:
    """Return the run at the end of its epoch."""
    value = None
    train_loss = run.loss_sum / run.step
    evaluated = _copy(run.state.evaluated)
    if program.validate is not None:
        value = float(program.validate(program.step.model(evaluated)))
        if not np.isfinite(value):
            raise program.failed(run, train_loss, value)
    run = run.validated(evaluated, train_loss, value)
    stopped = _call(program, evaluated, run.history, speed)
    return run._replace(stopped=stopped or run.waited(program.patience))


def _call(program: Program, evaluated: Any, history: History, speed: float) -> bool:
    """Call the callbacks; return whether one wants to stop."""
    if not program.callbacks:
        return False
    epoch = Epoch(program.fetched(evaluated), history, speed)
    return any([callback(epoch) for callback in program.callbacks])  # each is called


@partial(jax.jit, static_argnames="size", donate_argnames="state")
def _take(
    step: Step, size: int, first: int, start: int, stop: int, state: State, stack: Any
) -> tuple[State, jax.Array]:
    """Take the steps from `start` to `stop` of a stack of `size` minibatches.

    Return the state and the losses `(size,)`, which are 0 for steps that are not taken. The last
    loss is NaN if a parameter is not finite at the end.
    """

    def take(i, carry):
        state, losses = carry
        batch = jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), stack)
        state, loss = step.take(state, first + i, batch)
        return state, losses.at[i].set(loss.astype(losses.dtype))

    losses = jnp.zeros(size, float)
    state, losses = jax.lax.fori_loop(start, stop, take, (state, losses))
    finite = jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(state.params)]).all()
    last = jnp.where(finite, losses[stop - 1], jnp.nan)
    return step.placement.held(state), losses.at[stop - 1].set(last)


def _check(numbers, ema):
    for name, number in numbers.items():
        if number is not None:
            check_size(name, number)
    if ema is not None:
        check_number("ema", ema, lambda decay: 0 < decay < 1, "in (0, 1)")
