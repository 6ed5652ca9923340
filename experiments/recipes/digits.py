"""Flows of scikit-learn's handwritten digits: real data that need no download."""

import math
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from sklearn import datasets

import afflow

SIZES = 1257, 180, 360
COPIES = 4


def load_digits(seed: int, copies: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return training, validation and test images `(N, 64)`, dequantized.

    The 1,797 images of 8x8 pixels have grey levels 0..16. They are shuffled and split by `seed`.
    Uniform noise in [0, 1) is then added; a mean log-density in nats is therefore a lower bound on
    the mean log-probability of the grey levels. Each training image occurs `copies` times, each
    time with new noise. Validation and test images occur `COPIES` times.
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


def fit_digits(seed: int, epochs: int, out: Path) -> dict:
    """Fit `maf` and `nsf` of default size to dequantized 8x8 digits; return their test scores.

    A Gaussian is scored too. The rows are noisy copies of few images. The weight decay is therefore
    the largest default of `fit`.
    """
    train, validation, test = load_digits(seed)
    scores = {"Gaussian, full covariance": gaussian_log_prob(train, test)}
    for make in (afflow.maf, afflow.nsf):
        flow, history = afflow.fit(
            make(64, data=train, rngs=nnx.Rngs(seed)),
            train,
            key=jax.random.key(seed),
            validation=validation,
            max_epochs=epochs,
            weight_decay=3.0,
            label=make.__name__,
        )
        scores[make.__name__] = np.asarray(flow.log_prob(test))
    draw_digits(out, test, flow.sample(jax.random.key(seed), 40))
    print(f"\nDigits, 64 pixels, {len(test) // COPIES} test images:")
    print(f"  {'':28}{'nats':>18}{'bits / dim':>12}")
    results = {}
    for name, score in scores.items():
        score = score.reshape(COPIES, -1).mean(0)  # one score per image
        mean, error = score.mean(), score.std() / np.sqrt(len(score))
        bits = float(afflow.bits_per_dim(mean, 64, levels=1))
        results[name] = {"nats": mean, "standard_error": error, "bits": bits}
        print(f"  {name:28}{mean:10.2f} +- {error:4.2f}{bits:12.3f}")
    return {"test": results}


def draw_digits(out: Path, real: np.ndarray, generated: jax.Array) -> None:
    """Draw real digits beside generated digits."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
    for axis, title, images in zip(axes, ("real", "generated"), (real, generated), strict=True):
        tiles = np.pad(
            np.asarray(images)[:40].reshape(5, 8, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1))
        )
        axis.imshow(tiles.transpose(0, 2, 1, 3).reshape(50, 80), cmap="gray", vmin=0, vmax=17)
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(out / "sampling_speed_digits.png", dpi=150)
