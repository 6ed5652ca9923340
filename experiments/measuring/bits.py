"""Scores per sample with standard errors, and the scores of tables of counts."""

import numpy as np


def estimate_ratio(totals: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """Return the sum of totals over the sum of sizes, and the standard error of this ratio.

    Args:
        totals: the total of each unit `(N,)`, a piece or a recording. The units are taken as
            independent.
        sizes: the number of samples in each unit `(N,)`.
    """
    mean = totals.sum() / sizes.sum()
    error = np.sqrt(np.square(totals - mean * sizes).sum()) / sizes.sum()
    return float(mean), float(error)


def estimate_mean(values: np.ndarray) -> tuple[float, float]:
    """Return the mean of values `(N,)`, and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def summarize(bits: np.ndarray, symbols: list[np.ndarray]) -> dict[str, float]:
    """Return the bits per sample of all recordings together, and the standard error.

    Args:
        bits: the bits of each recording `(N,)`.
        symbols: the symbols of each recording `(T,)`.
    """
    mean, error = estimate_ratio(bits, np.array([len(row) for row in symbols]))
    return {"bits_per_sample": mean, "standard_error": error}


def summarize_groups(
    bits: np.ndarray, symbols: list[np.ndarray], groups: np.ndarray
) -> dict[int, dict[str, float]]:
    """Return the summary of the recordings of each group; `groups` `(N,)` has their numbers."""
    members = {int(group): np.flatnonzero(groups == group) for group in np.unique(groups)}
    return {
        group: summarize(bits[chosen], [symbols[i] for i in chosen])
        for group, chosen in members.items()
    }


def score_counts(
    train: list[np.ndarray], test: list[np.ndarray], num_symbols: int
) -> dict[str, dict[str, float]]:
    """Return the scores of two tables of counts, with one added to every count.

    Order 0 counts symbols. Order 1 counts a symbol after each other symbol; the first symbol of a
    recording is scored by order 0.
    """
    symbols, pairs = np.ones(num_symbols), np.ones((num_symbols, num_symbols))
    for row in train:
        np.add.at(symbols, row, 1)
        np.add.at(pairs, (row[:-1], row[1:]), 1)
    symbols = -np.log2(symbols / symbols.sum())
    pairs = -np.log2(pairs / pairs.sum(1, keepdims=True))
    order_0 = np.array([symbols[row].sum() for row in test])
    order_1 = np.array([symbols[row[0]] + pairs[row[:-1], row[1:]].sum() for row in test])
    return {"order_0": summarize(order_0, test), "order_1": summarize(order_1, test)}
