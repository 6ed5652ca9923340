"""Two-dimensional densities for pictures: eight in the plane, and two on the torus.

The densities in the plane cover about `[-4, 4]^2`; the torus is `[-pi, pi)^2`. A density is a
function `f(rng, n)` that draws `(n, 2)` float32 rows with a numpy generator.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import i0, i1

Sampler = Callable[[np.random.Generator, int], np.ndarray]


def two_moons(rng, n):
    """Two interleaved half circles."""
    angle = rng.uniform(0, np.pi, n)
    side = rng.choice([-1, 1], n)
    return _noisy(rng, 2.2 * side * (np.cos(angle) - 0.5), 2.2 * side * (np.sin(angle) - 0.2), 0.15)


def rings(rng, n):
    """Three concentric circles, each with a mass proportional to its radius."""
    radius = rng.choice([1.0, 2.2, 3.4], n, p=np.array([1.0, 2.2, 3.4]) / 6.6)
    return _noisy(rng, *_polar(radius, rng.uniform(0, 2 * np.pi, n)), 0.12)


def pinwheel(rng, n):
    """Five blades that turn as they widen."""
    blade = rng.integers(5, size=n)
    along = 2.1 + 0.65 * rng.normal(size=n)
    across = 0.22 * rng.normal(size=n)
    turn = 2 * np.pi * blade / 5 + 0.55 * along
    x = along * np.cos(turn) - across * np.sin(turn)
    y = along * np.sin(turn) + across * np.cos(turn)
    return _rows(x, y)


def checkerboard(rng, n):
    """Uniform on the black squares of a 4 x 4 board."""
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    x, y = (2 * (square + rng.uniform(size=n)) - 4 for square in (column, row))
    return _rows(x, y)


def spirals(rng, n):
    """Two arms from the centre, uniform in area, half a turn apart."""
    radius = 3.5 * np.sqrt(rng.uniform(size=n))
    arm = rng.integers(2, size=n)
    return _noisy(rng, *_polar(radius, np.pi * (0.85 * radius + arm)), 0.12)


def eight_gaussians(rng, n):
    """Eight round blobs on a circle."""
    angle = np.pi / 4 * rng.integers(8, size=n)
    return _noisy(rng, *_polar(3.0, angle), 0.3)


def swiss_roll(rng, n):
    """One arm of a spiral, one and a half turns long."""
    angle = np.pi * (1 + 3 * rng.uniform(size=n))
    return _noisy(rng, *_polar(0.28 * angle, angle), 0.12)


def wave(rng, n):
    """A cosine with Gaussian noise on its height."""
    x = rng.uniform(-3.8, 3.8, n)
    return _rows(x, 2.2 * np.cos(1.6 * x) + 0.35 * rng.normal(size=n))


def winding(rng, n):
    """A band that winds around the torus, twice in one direction and once in the other."""
    x = rng.uniform(-np.pi, np.pi, n)
    return _angles(x, 2 * x + rng.vonmises(0, 8, n))


def torus_checkerboard(rng, n):
    """Uniform on every other of 4 x 4 squares, half a square off the seams."""
    return _angles(*(np.pi / 4 * (checkerboard(rng, n) + 1)).T)


def _named(*samplers: Sampler) -> dict[str, Sampler]:
    return {f.__name__: f for f in samplers}


PLANE = _named(two_moons, rings, pinwheel, checkerboard, spirals, eight_gaussians, swiss_roll, wave)
TORUS = _named(winding, torus_checkerboard)
DENSITIES = PLANE | TORUS

ENTROPIES = {
    "checkerboard": np.log(32),  # uniform on eight squares of area four
    "eight_gaussians": np.log(8) + np.log(2 * np.pi * np.e * 0.3**2),  # the blobs do not touch
    "winding": 2 * np.log(2 * np.pi) + np.log(i0(8)) - 8 * i1(8) / i0(8),
    "torus_checkerboard": np.log(2 * np.pi**2),
}


def _polar(radius, angle):
    return radius * np.cos(angle), radius * np.sin(angle)


def _noisy(rng, x, y, scale):
    return _rows(x, y) + scale * rng.normal(size=(len(x), 2)).astype(np.float32)


def _angles(x, y):
    return np.remainder(_rows(x, y) + np.float32(np.pi), np.float32(2 * np.pi)) - np.float32(np.pi)


def _rows(x, y):
    return np.stack([x, y], 1).astype(np.float32)
