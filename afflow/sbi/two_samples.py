"""The classifier two-sample test: can a classifier tell two sets of samples apart."""

from typing import Any

import jax
import numpy as np

from afflow._tools.arrays import real_array
from afflow._tools.extras import import_extra
from afflow._tools.shapes import check_size


def c2st(
    x: jax.Array | np.ndarray, y: jax.Array | np.ndarray, *, seed: int, folds: int = 5
) -> float:
    r"""Return the accuracy of a classifier that tells samples `x` from samples `y`.

    $$\mathrm{C2ST} = \frac1K \sum_{k=1}^K \frac1{|F_k|} \sum_{i \in F_k}
    \big[c_k(z_i) = l_i\big],$$

    where $z$ holds all samples, $l_i$ is 0 for `x` and 1 for `y`, and the classifier $c_k$ is
    trained on all samples outside the fold $F_k$. The accuracy is about 0.5 for samples of one
    distribution, and 1 for samples that are fully distinct (Lopez-Paz and Oquab 2017,
    arXiv:1610.06545).

    The recipe is the benchmark sbibm's (Lueckmann et al. 2021, arXiv:2101.04653). The mean and the
    standard deviation of `x` standardise both sets. The classifier has two hidden layers of
    `10 D` rectified linear units and is trained by Adam, for at most 10,000 epochs. An
    accuracy other than 0.5 is a distance only between sets of equal sizes.

    Needs the library `scikit-learn` (extra `sklearn`).

    Args:
        x: the reference samples `(N, D)`.
        y: the other samples `(M, D)`.
        seed: the seed of the folds and of the classifier's initial weights, from 0.
        folds: the number of folds $K$, at least 2.

    Returns:
        The mean accuracy over the folds, from 0 to 1.

    Raises:
        ImportError: if `scikit-learn` is missing.
        ValueError: for samples of other shapes, samples that are not finite, or a coordinate that
            is constant in `x`.

    Example:
        >>> import afflow, jax
        >>> x, y = jax.random.normal(jax.random.key(0), (2, 200, 2))
        >>> afflow.sbi.c2st(x, y + 9.0, seed=0)
        1.0
    """
    check_size("seed", seed, least=0)
    check_size("folds", folds, least=2)
    x, y = _standardize(*_check_pair(x, y, folds))
    purpose = "has the classifier of c2st"
    networks: Any = import_extra("sklearn.neural_network", "sklearn", purpose)
    selection: Any = import_extra("sklearn.model_selection", "sklearn", purpose)
    width = 10 * x.shape[1]
    classifier = networks.MLPClassifier((width, width), max_iter=10_000, random_state=seed)
    parts = selection.KFold(folds, shuffle=True, random_state=seed)
    labels = np.repeat([0, 1], [len(x), len(y)])
    scores = selection.cross_val_score(classifier, np.concatenate([x, y]), labels, cv=parts)
    return float(scores.mean())


def _check_pair(x: Any, y: Any, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two sets of finite samples of one length `D` as float64."""
    x, y = (np.asarray(real_array(name, z), float) for name, z in (("x", x), ("y", y)))
    if x.ndim != 2 or x.shape[1:] != y.shape[1:] or min(len(x), len(y)) < folds:
        raise ValueError(
            f"Expected x.shape (N, D) and y.shape (M, D) with at least {folds} rows each, got "
            f"{x.shape} and {y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("Expected finite samples, got infinity or NaN.")
    return x, y


def _standardize(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the mean of `x` from both sets, and divide both by the standard deviation of `x`."""
    mean, deviation = x.mean(0), x.std(0, ddof=1)
    if not deviation.all():
        constant = np.flatnonzero(deviation == 0).tolist()
        raise ValueError(f"Expected coordinates of x that vary, got constant ones: {constant}.")
    return (x - mean) / deviation, (y - mean) / deviation
