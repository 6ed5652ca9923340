"""The classifier two-sample test, on samples whose best possible accuracy is known.

For N + M = 400 held-out labels, an accuracy of a useless classifier has a standard deviation of
0.025. The bands of 0.1 around the best accuracy are 4 standard deviations (false alarms: 1e-4).
"""

import numpy as np
import pytest
import scipy.stats

from afflow.sbi import c2st


def draw(shift=0.0, scale=1.0, size=200, seed=0):
    x, y = np.random.default_rng(seed).normal(size=(2, size, 2))
    return x, y * scale + [shift, 0.0]


def test_equal_distributions_are_not_told_apart():
    assert abs(c2st(*draw(), seed=0) - 0.5) < 0.1


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_shifted_normals_reach_the_best_accuracy(shift):
    best = scipy.stats.norm.cdf(shift / 2)
    assert abs(c2st(*draw(shift), seed=0) - best) < 0.1


def test_distinct_samples_are_told_apart():
    assert c2st(*draw(9.0), seed=0) == 1.0
    assert c2st(*draw(scale=1e-3), seed=0) > 0.95


def test_units_do_not_matter():
    x, y = draw(2.0)
    units, origin = np.array([1e-4, 1e5]), np.array([7.0, -1e7])
    assert c2st(x * units + origin, y * units + origin, seed=0) == pytest.approx(
        c2st(x, y, seed=0), abs=0.02
    )


def test_seed_determines_the_accuracy():
    x, y = draw(1.0)
    assert c2st(x, y, seed=3) == c2st(x, y, seed=3)
    assert c2st(x, y, seed=3) != c2st(x, y, seed=4)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), {}, r"got \(9, 2\) and \(9, 3\)"),
        (np.zeros(9), np.zeros(9), {}, r"got \(9,\)"),
        (np.zeros((4, 2)), np.zeros((9, 2)), {}, "at least 5 rows"),
        (np.eye(9), np.full((9, 9), np.nan), {}, "got infinity or NaN"),
        (np.ones((9, 1)), np.zeros((9, 1)), {}, r"constant ones: \[0\]"),
        (np.eye(9), np.eye(9), {"folds": 1}, "folds >= 2"),
        (np.eye(9), np.eye(9), {"seed": -1}, "seed >= 0"),
    ],
)
def test_wrong_arguments(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        c2st(x, y, **({"seed": 0} | options))
