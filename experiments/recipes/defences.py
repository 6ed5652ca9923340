"""The outcome of a defence on a set of images, and its accuracies."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """A set of images before and after purification; `hits` say which are classified rightly."""

    images: np.ndarray
    purified: np.ndarray
    p_values: np.ndarray
    purified_p_values: np.ndarray
    hits: np.ndarray
    purified_hits: np.ndarray
    black_and_white_hits: np.ndarray

    def choose_hits(self, threshold: float) -> np.ndarray:
        """Return the hits `(N,)` if images with a p-value of at most `threshold` are purified."""
        return np.where(self.p_values <= threshold, self.purified_hits, self.hits)


def choose_threshold(outcomes: dict[str, Outcome]) -> float:
    """Return the threshold with the best accuracy, the mean over clean and attacked images."""
    p_values = np.concatenate([outcome.p_values for outcome in outcomes.values()])
    candidates = np.append(0.0, np.unique(p_values))
    accuracies = [
        np.mean([outcome.choose_hits(threshold) for outcome in outcomes.values()])
        for threshold in candidates
    ]
    return float(candidates[np.argmax(accuracies)])


def summarize_hits(hits: np.ndarray) -> dict[str, float]:
    """Return the accuracy and its standard error."""
    return {"accuracy": hits.mean(), "standard_error": hits.std(ddof=1) / np.sqrt(len(hits))}


def summarize(outcome: Outcome, threshold: float) -> dict[str, Any]:
    """Return the accuracies without and with each defence, and quartiles of the p-values."""
    hits = {
        "undefended": outcome.hits,
        "black_and_white": outcome.black_and_white_hits,
        "purified": outcome.purified_hits,
        "adaptive": outcome.choose_hits(threshold),
    }
    p_values = {"given": outcome.p_values, "purified": outcome.purified_p_values}
    quartiles = {name: np.percentile(p, [25, 50, 75]).tolist() for name, p in p_values.items()}
    accuracies = {name: summarize_hits(each) for name, each in hits.items()}
    return accuracies | {"p_value_quartiles": quartiles}
