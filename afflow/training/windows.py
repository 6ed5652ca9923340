"""Windows of long sequences as minibatches."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from afflow._tools.arrays import real_array
from afflow._tools.shapes import check_size
from afflow.training.stream import Stream


def cut_windows(
    sequence: np.ndarray,
    length: int,
    batch_size: int,
    *,
    num_steps: int | None = None,
    consecutive: bool = False,
) -> Stream:
    """Return minibatches of windows of one long sequence, for `fit`.

    In every epoch the windows start at a new random offset and cover the sequence without overlap.
    Only the windows of a minibatch are copied, so the sequence may be a `numpy.memmap`. An epoch
    depends on its number only, so a resumed run sees the same minibatches.

    Windows come in random order, or in the order of the sequence with `consecutive`: row `b` of the
    minibatches then reads part `b` of `batch_size` equal parts, window by window. `fit` starts each
    window in the state in which the network left the window before, without gradients through it:
    truncated backpropagation through time. A window then sees tokens from before its beginning. At
    the beginning of an epoch the state is the first state of the network.

    Args:
        sequence: tokens `(N, *token)`: symbols of a text, samples of a sound, frames of a piece.
        length: tokens in a window `T`.
        batch_size: windows in a minibatch.
        num_steps: minibatches in an epoch. The default visits every window once.
        consecutive: whether the windows of a row follow each other. This needs a network whose
            cache has one size for all lengths, such as `Recurrent` and `WaveNet`.

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
    if consecutive:
        least = (2 * length - 1) * batch_size
        usual = (len(values) // batch_size - length + 1) // length
    else:
        least = length * batch_size + length - 1
        usual = (len(values) - length + 1) // (length * batch_size)
    if usual < 1:
        raise ValueError(
            f"Expected a sequence of at least {least} tokens for {batch_size} windows of "
            f"{length}, got {len(values)}."
        )
    if num_steps is None:
        num_steps = usual
    check_size("num_steps", num_steps)
    if not consecutive:
        return Stream(_Windows(values, length, batch_size), num_steps)
    if num_steps > usual:
        raise ValueError(f"Expected num_steps <= {usual} of consecutive windows, got {num_steps}.")
    return Stream(_Parts(values, length, batch_size, num_steps), num_steps, consecutive=True)


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


@dataclass(frozen=True)
class _Parts:
    """The minibatches of an epoch whose rows read one part of the sequence each, in order."""

    sequence: np.ndarray
    length: int
    batch_size: int
    num_steps: int

    def __call__(self, epoch: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng([len(self.sequence), epoch])
        part = len(self.sequence) // self.batch_size
        offset = rng.integers(part - self.num_steps * self.length + 1)
        starts = offset + part * np.arange(self.batch_size)
        within = np.arange(self.length)
        for step in range(self.num_steps):
            yield self.sequence[starts[:, None] + step * self.length + within]
