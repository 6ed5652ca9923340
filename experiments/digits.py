"""Scikit-learn's handwritten digits: real data that comes without a download."""

import math

import numpy as np
from sklearn import datasets

SIZES = 1257, 180, 360
COPIES = 4


def load_digits(seed: int, copies: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training, validation and test images `(N, 64)`, dequantized.

    The 1,797 images of 8x8 pixels with grey levels 0..16 are shuffled and split by
    `seed`, then uniform noise in [0, 1) is added, so that a density of the result in nats
    bounds that of the grey levels from below. Each training image comes `copies` times, with
    noise of its own; validation and test images `COPIES` times.
    """
    rng = np.random.default_rng(seed)
    images = rng.permutation(datasets.load_digits().data)
    parts = np.split(images, np.cumsum(SIZES)[:-1])
    return tuple(
        _dequantize(rng, np.tile(part, (times, 1)))
        for part, times in zip(parts, (copies, COPIES, COPIES), strict=True)
    )


def _dequantize(rng, images):
    return (images + rng.uniform(size=images.shape)).astype(np.float32)


def gaussian_log_prob(train: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the log-density of `x` under the full-covariance Gaussian of `train`."""
    scale = np.linalg.cholesky(np.cov(train.T))
    z = np.linalg.solve(scale, (x - train.mean(0)).T)
    log_det = np.log(np.diag(scale)).sum()
    return -0.5 * np.sum(z**2 + math.log(2 * math.pi), axis=0) - log_det


def bits_per_dim(nats: float, dim: int) -> float:
    """Return minus the log-likelihood in bits per dimension."""
    return -nats / (dim * math.log(2))
