"""A full-covariance Gaussian on each benchmark, against the published score.

    python experiments/gaussians.py --data-dir FOLDER

It checks the recipes and splits of the data, not a model.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from datasets import DENSITIES, RNADE, fold, rnade
from measuring.report import save

PUBLISHED = {  # nats, and two standard errors if the paper gives them
    "power": (-7.74, 0.02),
    "gas": (-3.58, 0.75),
    "hepmass": (-27.93, 0.02),
    "miniboone": (-37.24, 1.07),
    "bsds300": (96.67, 0.25),
    "red_wine": (-13.18,),
    "parkinsons": (-10.85,),
    "boston": (-11.37,),
}


@dataclass
class Config:
    """The data folder and the folder for the scores."""

    data_dir: Path | None = None
    out: Path = Path(__file__).parent / "results"


def gaussian_log_prob(train: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the log-density of `x` under the full-covariance Gaussian of `train`."""
    mean = train.mean(0, dtype=float)
    scale = np.linalg.cholesky(np.cov(train.T, dtype=float))
    z = np.linalg.solve(scale, (x - mean).T)
    log_det = np.log(np.diag(scale)).sum()
    return -0.5 * np.sum(z**2 + math.log(2 * math.pi), axis=0) - log_det


def summarize(scores: np.ndarray) -> dict[str, float]:
    """Return the mean of the scores in nats, and two standard errors of the mean."""
    return {"nats": scores.mean(), "two_standard_errors": 2 * scores.std() / len(scores) ** 0.5}


def score(name: str, folder: Path | None) -> dict[str, float]:
    """Return the Gaussian's test score. For the sets of RNADE it covers all ten folds."""
    if name in RNADE:
        rows = rnade(name, folder)
        folds = [gaussian_log_prob(*fold(rows, number)) for number in range(10)]
        return summarize(np.concatenate(folds))
    train, _, test = DENSITIES[name](folder)
    return summarize(gaussian_log_prob(train, test))


def main(config: Config) -> None:
    """Score every data set whose files exist."""
    results = {}
    for name in [*DENSITIES, *RNADE]:
        try:
            results[name] = score(name, config.data_dir)
        except FileNotFoundError:
            print(f"{name:16} not in the folder")
            continue
        print(f"{name:16} {results[name]['nats']:9.3f}   published {PUBLISHED.get(name)}")
    published = {name: PUBLISHED[name] for name in results if name in PUBLISHED}
    save(config.out / "gaussians.json", config, {"test": results, "published": published})


if __name__ == "__main__":
    main(tyro.cli(Config))
