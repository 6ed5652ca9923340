"""Anomaly detection by density: a flow, a kernel density estimate and an isolation forest.

    python experiments/anomalies.py
    python experiments/anomalies.py --small

Each method is fitted to rows of one class, the normal class. Its score ranks other rows of the
normal class among rows of other classes, the anomalies. The area under the ROC curve is the
probability that an anomaly scores worse than a normal row. Both sets come with scikit-learn.

No choice sees an anomaly. The flow and the forest have their default settings; the flow stops early
by held-out normal rows. The bandwidth of the kernel has the best log-likelihood in cross-validation
on the normal training rows. All methods get the same standardised rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from measuring.report import keep_programs, save
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from afflow.adapters import FlowDensity

BENIGN = 1
BANDWIDTHS = np.geomspace(0.1, 10, 21)


@dataclass(frozen=True)
class Config:
    """The size of the run. A run has its own split, initial weights and, for digits, class."""

    runs: int = 10
    max_epochs: int = 100
    small: bool = False
    """One run with few epochs, to try the script."""
    out: Path = Path(__file__).parent / "results" / "anomalies.json"


class Rows(NamedTuple):
    """Normal rows to train on, and normal rows and anomalies to rank."""

    train: np.ndarray
    normal: np.ndarray
    anomalies: np.ndarray


def split(x: np.ndarray, is_normal: np.ndarray, size: int, rng: np.random.Generator) -> Rows:
    """Return `size` random normal rows, the other normal rows, and the anomalies."""
    normal, anomalies = rng.permutation(x[is_normal]), x[~is_normal]
    return Rows(normal[:size], normal[size:], anomalies)


def breast_cancer(run: int) -> Rows:
    """Return measurements of cell nuclei `(N, 30)`; malignant tumours are the anomalies."""
    x, y = load_breast_cancer(return_X_y=True)
    return split(x, y == BENIGN, 200, np.random.default_rng(run))


def digits(run: int) -> Rows:
    """Return images `(N, 64)` with uniform noise; all digits but one are the anomalies.

    The noise fills the gap between grey levels. Without noise a density of integers has no bound.
    """
    rng = np.random.default_rng(run)
    x, y = load_digits(return_X_y=True)
    x = x + rng.uniform(size=x.shape)
    return split(x, y == run % 10, 100, rng)


SETS: dict[str, Callable[[int], Rows]] = {"breast_cancer": breast_cancer, "digits": digits}


def make_detectors(config: Config, run: int) -> dict[str, BaseEstimator]:
    """Return the methods by name, not yet fitted."""
    return {
        "flow": FlowDensity(max_epochs=config.max_epochs, random_state=run),
        "kernel": GridSearchCV(KernelDensity(), {"bandwidth": BANDWIDTHS}, cv=5),
        "forest": IsolationForest(random_state=run),
    }


def find_area(detector: BaseEstimator, rows: Rows) -> float:
    """Fit a method to the training rows. Return its area under the ROC curve on other rows."""
    pipeline = make_pipeline(StandardScaler(), detector).fit(rows.train)
    tested = np.concatenate([rows.normal, rows.anomalies])
    is_anomaly = np.arange(len(tested)) >= len(rows.normal)
    return float(roc_auc_score(is_anomaly, -pipeline.score_samples(tested)))


def summarize(areas: list[float]) -> dict[str, object]:
    """Return the mean area, its standard deviation over the runs, and each run's area."""
    spread = np.std(areas, ddof=1) if len(areas) > 1 else np.nan
    return {"mean": np.mean(areas), "std": spread, "areas": areas}


def main(config: Config) -> None:
    """Measure every method on every set, print the table, and save it."""
    if config.small:
        config = Config(runs=1, max_epochs=2, small=True, out=config.out.with_stem("small"))
    keep_programs()
    results: dict[str, dict[str, dict[str, object]]] = {}
    for name, load in SETS.items():
        areas: dict[str, list[float]] = {}
        for run in range(config.runs):
            for method, detector in make_detectors(config, run).items():
                areas.setdefault(method, []).append(find_area(detector, load(run)))
        results[name] = {method: summarize(found) for method, found in areas.items()}
        for method, result in results[name].items():
            print(f"{name:14} {method:7} {result['mean']:.4f} ± {result['std']:.4f}")
    save(config.out, config, results)


if __name__ == "__main__":
    main(tyro.cli(Config))
