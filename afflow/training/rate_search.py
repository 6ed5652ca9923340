"""A search for a learning rate: one run over rates that grow until the loss diverges."""

from dataclasses import dataclass
from itertools import chain, count, islice
from typing import Any

import jax
import numpy as np
import optax

from afflow._tools.arguments import check_callable, check_number
from afflow._tools.calls import make_typed
from afflow._tools.shapes import check_size
from afflow.core.table import get_table
from afflow.training.fitting import NO_EPOCH
from afflow.training.history import NonFiniteLossError
from afflow.training.loop import train
from afflow.training.objectives import Objective, maximum_likelihood
from afflow.training.placement import make_placement, off_mesh
from afflow.training.rows import make_rows
from afflow.training.sources import make_source

_SMOOTHING = 0.9
_NOISY = 10  # steps whose losses show the noise of the minibatches
_DIVERGED = 4  # times the fall of the loss, or its noise


@dataclass(frozen=True)
class RateSearch:
    """The losses of steps with growing learning rates.

    `rates[t]` is the learning rate of step `t`, `losses[t]` the loss of its minibatch before the
    step, and `smoothed[t]` an exponential average of the losses. A run that diverged is shorter.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def suggestion(self) -> float:
        """A tenth of the rate with the lowest smoothed loss."""
        return float(self.rates[np.argmin(self.smoothed)] / 10)


@off_mesh
def find_learning_rate(
    flow: Any,
    x: jax.Array | np.ndarray,
    *,
    key: jax.Array,
    context: jax.Array | None = None,
    weights: jax.Array | None = None,
    objective: Objective = maximum_likelihood,
    batch_size: int | None = None,
    low: float = 1e-6,
    high: float = 1.0,
    num_steps: int = 200,
    progress: bool = True,
) -> RateSearch:
    r"""Train over learning rates from `low` to `high`; return the losses.

    Step $t$ of $T$ has the rate $r_t = r_0 (r_T / r_0)^{t / T}$. The optimizer is Adam on gradients
    clipped to norm 5, as in `fit`. The model is not changed.

    Smith 2017, arXiv:1506.01186.

    Args:
        flow: the model before training.
        x: data `(N, *event_shape)`, or a table for a flow with columns.
        key: a PRNG key for the minibatches and for random objectives.
        context: `(N, *context_shape)` for a conditional model.
        weights: `(N,)`, the weight of each row.
        objective: the loss, as in `fit`.
        batch_size: the number of rows in a minibatch, as in `fit`.
        low: the first learning rate.
        high: the last learning rate, which should be too large.
        num_steps: the number of steps.
        progress: show a progress bar, if `tqdm` is installed.

    Raises:
        ValueError: for unusable data, or rates that do not satisfy `0 < low < high`.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> x = 3 + jax.random.normal(jax.random.key(0), (512, 2))
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> search = afflow.training.find_learning_rate(
        ...     flow, x, key=jax.random.key(1), num_steps=50, progress=False
        ... )
        >>> 1e-5 < search.suggestion < 1
        True
    """
    check_size("num_steps", num_steps)
    check_number("low", low, lambda rate: rate > 0, "> 0")
    check_number("high", high, lambda rate: rate > low, f"> low = {low}")
    check_callable("objective", objective, "afflow.training.maximum_likelihood")
    if table := get_table(flow):
        flow, x = table.enter(flow), table.encode(x)
    keys = jax.random.split(make_typed(key))
    rows = make_rows(x, context, weights)
    source = make_source(rows, objective, 0.0, batch_size, keys, make_placement(None))
    source.check_model(flow)
    schedule = optax.exponential_decay(low, num_steps, high / low)
    optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))
    stacks = chain.from_iterable(source.batches(epoch, 0, 1) for epoch in count())
    try:
        _, history = train(
            flow,
            source.loss,
            key=jax.random.fold_in(keys[1], NO_EPOCH),
            num_steps=1,
            max_epochs=num_steps,
            batches=lambda epoch, start, size: islice(stacks, 1),
            optimizer=optimizer,
            callbacks=[lambda epoch: _has_diverged(epoch.history.train)],
            progress=progress,
            label="learning rates",
        )
    except NonFiniteLossError as error:
        history = error.history
    losses = np.array([loss for loss in history.train if np.isfinite(loss)])
    rates = low * (high / low) ** (np.arange(len(losses)) / num_steps)
    return RateSearch(rates, losses, _smooth(losses))


def _has_diverged(losses: list[float]) -> bool:
    """Return whether the smoothed loss has risen far above its lowest value."""
    smoothed = _smooth(np.array(losses))
    lowest, noise = smoothed.min(), np.std(losses[:_NOISY])
    far = _DIVERGED * max(smoothed[0] - lowest, noise)
    return len(losses) > _NOISY and bool(smoothed[-1] > lowest + far)


def _smooth(losses: np.ndarray) -> np.ndarray:
    """Return the exponential average up to each loss, without the weight of earlier zeros."""
    average, smoothed = 0.0, []
    for number, loss in enumerate(losses, start=1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed.append(average / (1 - _SMOOTHING**number))
    return np.array(smoothed)
