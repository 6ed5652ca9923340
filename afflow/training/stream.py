"""Data that do not fit on the device: a thread reads them while the device trains."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from afflow._tools.arguments import check_callable
from afflow._tools.shapes import check_size
from afflow.training.rows import Rows, check_weights, make_rows

T = TypeVar("T")
_STACK_BYTES = 2**25


@dataclass(frozen=True)
class Stream:
    """Minibatches from any iterable, in place of data in memory.

    A thread reads a few minibatches ahead of the device. A run resumes in the middle of an epoch by
    skipping the minibatches that it has already seen. `make` must therefore give the same
    minibatches again.

    Args:
        make: `make(epoch)` returns an iterable over the minibatches of an epoch, counted from 0.
            All minibatches have the same shape: `x` `(B, *event_shape)`, or tuples `(x, context)`
            or `(x, context, weights)`. Weights are scaled to mean one in each minibatch.
        num_steps: the number of minibatches in an epoch. Further minibatches are not read.
        consecutive: whether each row continues the row of the minibatch before, from the beginning
            of an epoch to its end. `fit` then carries the state of the network from window to
            window, see `cut_windows`.

    Raises:
        ValueError: if `make` is not a function of one argument, or for `num_steps` below one.

    Example:
        >>> import afflow, jax, numpy as np
        >>> def batches(epoch):
        ...     rng = np.random.default_rng(epoch)
        ...     while True:
        ...         yield rng.normal(size=(32, 1)).astype(np.float32)
        >>> flow = afflow.Flow(afflow.Normal(1), afflow.Elementwise(afflow.Affine(), 1))
        >>> options = {"validation": 0, "max_epochs": 2, "progress": False}
        >>> stream = afflow.training.Stream(batches, num_steps=20)
        >>> _, history = afflow.fit(flow, stream, key=jax.random.key(0), **options)
        >>> len(history.train)
        2
    """

    make: Callable[[int], Iterable[Any]]
    num_steps: int
    consecutive: bool = False

    def __post_init__(self):
        check_callable("make", self.make, "lambda epoch: batches", 1)
        check_size("num_steps", self.num_steps)

    def __call__(self, epoch: int, start: int, size: int) -> Iterator[Rows]:
        """Return the minibatches of an epoch from step `start` on, stacked by `size`."""
        return prefetch(self._stacks(epoch, start, size))

    def _stacks(self, epoch, start, size):
        batches = islice(self.make(epoch), start, self.num_steps)
        for first in range(start, self.num_steps, size):
            stack = [_as_rows(batch) for batch in islice(batches, size)]
            if len(stack) < min(size, self.num_steps - first):
                raise ValueError(
                    f"Expected {self.num_steps} minibatches in epoch {epoch}, got "
                    f"{first + len(stack)}."
                )
            yield jax.tree.map(lambda *parts: np.stack(parts), *stack)

    def first(self) -> Rows:
        """Return the first minibatch."""
        return _as_rows(next(iter(self.make(0))))

    def with_check(self, check: Callable[[Rows], None]) -> "Stream":
        """Return the stream with a check of every minibatch, which may raise."""
        return replace(self, make=_Checked(self.make, check))


@dataclass(frozen=True)
class _Checked:
    """Minibatches that are checked when they are read."""

    make: Callable[[int], Iterable[Any]]
    check: Callable[[Rows], None]

    def __call__(self, epoch: int) -> Iterator[Any]:
        """Yield the minibatches of an epoch."""
        for batch in self.make(epoch):
            self.check(_as_rows(batch))
            yield batch


class HostShuffle(NamedTuple):
    """Minibatches of rows on the host, in memory or files, in a new order for each epoch."""

    rows: Rows
    index: np.ndarray
    batch_size: int
    seed: tuple[int, ...]

    def __call__(self, epoch: int, start: int, size: int) -> Iterator[Rows]:
        """Return the minibatches of an epoch from step `start` on, stacked by `size`."""
        return prefetch(self._stacks(epoch, start, size))

    def _stacks(self, epoch, start, size):
        num_steps = len(self.index) // self.batch_size
        order = np.random.default_rng([*self.seed, epoch]).permutation(self.index)
        order = order[: num_steps * self.batch_size].reshape(num_steps, self.batch_size)
        for first in range(start, num_steps, size):
            yield self.rows.at(order[first : first + size])


def prefetch(items: Iterator[T], ahead: int = 2) -> Iterator[T]:
    """Yield the items, which a thread computes up to `ahead` items in advance."""
    with ThreadPoolExecutor(1) as pool:
        ready = deque(pool.submit(next, items, None) for _ in range(ahead))
        while (item := ready.popleft().result()) is not None:
            ready.append(pool.submit(next, items, None))
            yield item


def stack_size(batch: Rows) -> int:
    """Return the number of minibatches to move to the device at once, about 32 MiB in all."""
    size = sum(np.asarray(part).nbytes for part in batch if part is not None)
    return max(1, _STACK_BYTES // max(1, size))


def _as_rows(batch: Any) -> Rows:
    """Return a minibatch as `Rows`, with weights scaled to mean one.

    Raises:
        ValueError: for unusable arrays or weights.
    """
    rows = make_rows(*batch) if isinstance(batch, tuple) else make_rows(batch)
    if rows.weights is None:
        return rows
    return rows._replace(weights=check_weights(rows.weights, rows.size))
