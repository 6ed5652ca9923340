"""Long sequences by models of a fixed number of tokens: scores, and continuations."""

import jax
import numpy as np

import afflow


def score_by_windows(model: afflow.AutoregressiveModel, symbols: np.ndarray) -> np.ndarray:
    """Return the log-probability of every symbol of a sequence, from overlapping windows.

    Windows begin half a window apart. A window counts where the window before has ended, in its
    second half. The last window ends with the sequence. A sequence shorter than a window is padded;
    the padding counts nothing.
    """
    (length,), size = model.event_shape, len(symbols)
    rows = np.pad(symbols, (0, max(length - size, 0)))
    starts = [*range(0, len(rows) - length, length // 2), len(rows) - length]
    windows = np.stack([rows[start : start + length] for start in starts])
    parts = [model.log_conditionals(windows[i : i + 64]) for i in range(0, len(windows), 64)]
    scores, done = np.zeros(len(rows)), 0
    for start, terms in zip(starts, np.concatenate(parts), strict=True):
        scores[done : start + length] = terms[done - start :]
        done = start + length
    return scores[:size]


def continue_by_windows(
    model: afflow.AutoregressiveModel, key: jax.Array, prompt: np.ndarray, size: int, **options
) -> np.ndarray:
    """Return `size` symbols that begin with a prompt, drawn half a window at a time.

    A model of a fixed number of tokens knows no longer sequences. Each part is drawn after the last
    half of a window.

    Args:
        model: the model of a window.
        key: a PRNG key.
        prompt: the first symbols, at most half a window.
        size: the number of symbols.
        **options: see `AutoregressiveModel.generate`.
    """
    symbols, half = np.asarray(prompt), model.event_shape[0] // 2
    while len(symbols) < size:
        given = symbols[-half:]
        drawn, _ = model.generate(jax.random.fold_in(key, len(symbols)), given, **options)
        symbols = np.concatenate([symbols, np.asarray(drawn)[len(given) :]])
    return symbols[:size]
