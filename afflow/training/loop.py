"""The training loop: compiled scans of optimizer steps on any loss, with or without data."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.tree_util import Partial

from afflow.training.history import History, NonFiniteLossError
from afflow.training.optimizer import Optimizer, optimizer_for
from afflow.training.progress import progress_bar

Model = TypeVar("Model")
Loss = Callable[[Any, jax.Array, Any], jax.Array]
Batches = Callable[[int, int, int], Iterable[Any]]


class State(NamedTuple):
    """What a step changes: parameters, the optimizer's state, averaged parameters."""

    params: Any
    optimizer: Any
    average: Any

    @property
    def evaluated(self) -> Any:
        """The parameters to validate and to return."""
        return self.params if self.average is None else self.average


class Run(NamedTuple):
    """Where a training run stands: all that it goes on from."""

    state: State
    best: Any
    best_loss: float = np.inf
    history: History = History([], [], 0)
    epoch: int = 0
    step: int = 0  # of this epoch
    loss_sum: float = 0.0  # over these steps


class Program(NamedTuple):
    """What stays as it is during a run."""

    graph: Any
    rest: Any
    loss: Partial
    optimizer: optax.GradientTransformation
    ema: float | None
    key: jax.Array
    num_steps: int

    def model(self, params: Any) -> Any:
        """Return the model with these parameters."""
        return nnx.merge(self.graph, params, self.rest)


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
    optimizer: Optimizer | None = None,
    ema: float | None = None,
    chunk: int | None = None,
    progress: bool = True,
    label: str = "",
) -> tuple[Model, History]:
    r"""Minimise a loss over a model's parameters; return the best model and its history.

    This is what `fit` and every other way to train is made of. The `nnx.Param` leaves of
    the model are trained, in compiled scans over many steps at a time.

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
        learning_rate: initial rate of the default optimizer: Adam on gradients clipped
            to norm 5, with a cosine decay to zero over all steps.
        optimizer: any optax optimizer in place of the default, or a function that makes
            one from the number of steps.
        ema: validate and return an exponential moving average of the parameters with this
            decay, $\bar\theta_t = d_t \bar\theta_{t-1} + (1 - d_t) \theta_t$, which starts
            quickly: $d_t = \min(d, t / (t + 9))$ at step $t = 1, 2, \dots$
        chunk: steps in one compiled scan; by default the whole epoch.
        progress: show a progress bar, if `tqdm` is installed.
        label: stands in front of the bar.

    Returns:
        The best model, and the `History` of its losses.

    Raises:
        ValueError: for numbers out of range.
        NonFiniteLossError: if the loss or a parameter turns infinite or NaN.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> def loss(flow, key, batch):  # -E[log q(x)] for x ~ N(3, 1), without data
        ...     return -flow.log_prob(3 + jax.random.normal(key, (64, 2))).mean()
        >>> flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.Affine(), 2))
        >>> options = {"num_steps": 50, "max_epochs": 2, "learning_rate": 0.1, "progress": False}
        >>> flow, history = afflow.train(flow, loss, key=jax.random.key(0), **options)
        >>> history.train[1] < history.train[0]
        True
    """
    _check(num_steps=num_steps, max_epochs=max_epochs, chunk=chunk, ema=ema)
    optimizer = optimizer_for(max_epochs * num_steps, optimizer, learning_rate)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    program = Program(graph, rest, _partial(loss), optimizer, ema, typed(key), num_steps)
    average = None if ema is None else params
    run = Run(State(params, optimizer.init(params), average), best=params)
    bar = progress_bar(max_epochs * num_steps, 0, label, show=progress)
    while run.epoch < max_epochs and not _exhausted(run, patience):
        for moved in _steps(program, run, batches, chunk or num_steps):
            bar.update(moved.step - run.step)
            run = moved
        run = _closed(program, run, validate)
        bar.set_postfix(**_latest(run.history))
    bar.close()
    return program.model(run.best), run.history


def _steps(program: Program, run: Run, batches: Batches | None, chunk: int) -> Iterator[Run]:
    """Yield the run after each chunk of what is left of its epoch."""
    stacks = iter(batches(run.epoch, run.step, chunk) if batches else repeat(None))
    while run.step < program.num_steps:
        size = min(chunk, program.num_steps - run.step)
        yield (run := _advanced(program, run, next(stacks), size))


def _advanced(program: Program, run: Run, stack: Any, size: int) -> Run:
    """Return the run after `size` more steps."""
    graph, rest, loss, optimizer, ema, key, num_steps = program
    first = run.epoch * num_steps + run.step
    state, loss_sum = _scan(optimizer, ema, size, graph, rest, loss, key, first, run.state, stack)
    total, step = run.loss_sum + float(loss_sum), run.step + size
    if not np.isfinite(total):
        _fail(program, run, run.history.after(total / step, None))
    return run._replace(state=state, step=step, loss_sum=total)


def _closed(program: Program, run: Run, validate: Callable | None) -> Run:
    """Return the run at the end of its epoch: validated, and the best kept."""
    params = run.state.evaluated
    value = None if validate is None else float(validate(program.model(params)))
    history = run.history.after(run.loss_sum / program.num_steps, value)
    if value is not None and not np.isfinite(value):
        _fail(program, run, history)
    if value is None or value < run.best_loss:
        history = history._replace(best_epoch=run.epoch)
        run = run._replace(best=params, best_loss=np.inf if value is None else value)
    return run._replace(history=history, epoch=run.epoch + 1, step=0, loss_sum=0.0)


def _fail(program: Program, run: Run, history: History):
    raise NonFiniteLossError(run.epoch, program.model(run.best), history)


@partial(jax.jit, static_argnames=("optimizer", "ema", "size", "graph"))
def _scan(optimizer, ema, size, graph, rest, loss, key, first, state, stack):
    """Take `size` optimizer steps; return the state and the sum of losses."""

    def loss_of(params, t, batch):
        return loss(nnx.merge(graph, params, rest), jax.random.fold_in(key, t), batch)

    def step(state, item):
        t, batch = item
        value, grads = jax.value_and_grad(loss_of)(state.params, t, batch)
        updates, memory = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = None if ema is None else _averaged(ema, t, state.average, params)
        return State(params, memory, average), value

    state, losses = jax.lax.scan(step, state, (first + jnp.arange(size), stack))
    finite = jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(state.params)]).all()
    return state, jnp.where(finite, losses.sum(), jnp.nan)


def _averaged(ema, t, average, params):
    decay = jnp.minimum(ema, (t + 1) / (t + 10))
    return jax.tree.map(lambda a, b: (decay * a + (1 - decay) * b).astype(b.dtype), average, params)


def _exhausted(run: Run, patience: int | None) -> bool:
    return patience is not None and run.epoch - 1 - run.history.best_epoch >= patience


def _latest(history: History) -> dict[str, str]:
    losses = {"train": history.train, "validation": history.validation}
    return {name: f"{values[-1]:.4f}" for name, values in losses.items() if values}


def _partial(loss: Loss) -> Partial:
    return loss if isinstance(loss, Partial) else Partial(loss)


def typed(key: jax.Array) -> jax.Array:
    """Return a PRNG key of the new kind, from either kind."""
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if is_typed else jax.random.wrap_key_data(key)


def _check(ema, **numbers):
    wrong = {name: n for name, n in numbers.items() if n is not None and n < 1}
    if wrong:
        raise ValueError(f"Expected whole numbers of at least 1, got {wrong}.")
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"Expected ema in (0, 1), got {ema}.")
