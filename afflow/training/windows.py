"""Windows of long sequences as minibatches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from afflow._tools.arrays import real_array
from afflow._tools.shapes import check_size
from afflow.training.stream import Stream


def cut_windows(
    sequence: np.ndarray, length: int, batch_size: int, *, num_steps: int | None = None
) -> Stream:
    """Return minibatches of windows of one long sequence, for `fit`.

    In every epoch the windows start at a new random offset, cover the sequence without overlap and
    come in random order. Only the windows of a minibatch are copied, so the sequence may be a
    `numpy.memmap`. An epoch depends on its number only, so a resumed run sees the same minibatches.

    Args:
        sequence: tokens `(N, *token)`: symbols of a text, samples of a sound, frames of a piece.
        length: tokens in a window `T`.
        batch_size: windows in a minibatch.
        num_steps: minibatches in an epoch. The default visits every window once.

    Raises:
        ValueError: for sizes below one, or a sequence of fewer than two minibatches.

    Example:
        >>> import afflow, numpy as np
        >>> text = np.arange(1000) % 7
        >>> stream = afflow.training.cut_windows(text, 16, 8)
        >>> next(iter(stream.make(0))).shape, stream.num_steps
        ((8, 16), 7)
    """
    check_size("length", length)
    check_size("batch_size", batch_size)
    values = real_array("sequence", sequence)
    values = values if isinstance(values, np.memmap) else np.asarray(values)
    usual = (len(values) - length + 1) // (length * batch_size)
    if usual < 1:
        raise ValueError(
            f"Expected a sequence of at least {length * (batch_size + 1) - 1} tokens for "
            f"{batch_size} windows of {length}, got {len(values)}."
        )
    return Stream(_Windows(values, length, batch_size), num_steps or usual)


@dataclass(frozen=True)
class _Windows:
    """The minibatches of windows of an epoch, without end: each pass has a new offset."""

    sequence: np.ndarray
    length: int
    batch_size: int

    def __call__(self, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([len(self.sequence), epoch])
        within = np.arange(self.length)
        while True:
            offset = rng.integers(self.length)
            starts = np.arange(offset, len(self.sequence) - self.length + 1, self.length)
            rng.shuffle(starts)
            for i in range(0, len(starts) - self.batch_size + 1, self.batch_size):
                yield self.sequence[starts[i : i + self.batch_size, None] + within]
