"""Densities of samples on a grid, and the regions that hold a share of the mass."""

from collections.abc import Callable

import numpy as np

from afflow._tools.shapes import check_size

Limits = tuple[float, float]


def find_limits(values: np.ndarray, share: float = 0.99) -> Limits:
    """Return an interval that holds the central share of values `(N,)`, with margins."""
    low, high = np.quantile(values, [(1 - share) / 2, (1 + share) / 2])
    margin = 0.15 * (high - low) or 0.5 * max(abs(high), 1.0)
    return low - margin, high + margin


def make_centers(limits: Limits, num: int = 100) -> np.ndarray:
    """Return the centers of `num` equal bins between the limits."""
    check_size("num", num, least=2)
    edges = np.linspace(*limits, num + 1)
    return (edges[1:] + edges[:-1]) / 2


def smooth(rows: np.ndarray, centers: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the smoothed and the raw share of rows in each bin of a grid.

    The smoothed shares are a kernel density estimate. Its kernel is Gaussian, with the bandwidth
    $h = \hat\sigma \, (4 / ((d + 2) N))^{1/(d + 4)}$ along each of the $d$ axes
    (Silverman 1986). The spread $\hat\sigma$ is the standard deviation, or the interquartile range
    divided by 1.34 if this is smaller.

    Args:
        rows: values `(N, d)`.
        centers: the centers of the bins along each axis.
    """
    widths = [axis[1] - axis[0] for axis in centers]
    ranges = [(c[0] - w / 2, c[-1] + w / 2) for c, w in zip(centers, widths, strict=True)]
    raw, _ = np.histogramdd(rows, [len(axis) for axis in centers], ranges)
    raw = smoothed = raw / len(rows)
    for number, axis in enumerate(centers):
        width = _find_bandwidth(rows[:, number], len(centers))
        kernel = _make_kernel(axis, max(width, widths[number] / 4))
        smoothed = np.moveaxis(np.tensordot(kernel, smoothed, (1, number)), 0, number)
    return smoothed, raw


def _find_bandwidth(values: np.ndarray, num_axes: int) -> float:
    quartiles = np.quantile(values, [0.25, 0.75])
    spread = min(values.std(), (quartiles[1] - quartiles[0]) / 1.34) or values.std()
    return spread * (4 / ((num_axes + 2) * len(values))) ** (1 / (num_axes + 4))


def _make_kernel(centers: np.ndarray, width: float) -> np.ndarray:
    """Return the share of the mass of each bin (column) that moves to each bin (row)."""
    kernel = np.exp(-0.5 * ((centers[:, None] - centers) / width) ** 2)
    return kernel / kernel.sum(0)


def find_heights(density: np.ndarray, mass: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """Return, for each share, the height of density above which the bins hold this share of mass.

    Args:
        density: the density of each bin.
        mass: the mass of each bin; for samples the raw shares, so that a region holds the given
            share of the samples whatever the bandwidth.
        shares: the shares of the mass, decreasing.
    """
    order = np.argsort(-density, axis=None)
    within = mass.ravel()[order].cumsum()
    places = np.searchsorted(within, np.array(shares) * within[-1])
    return np.unique(density.ravel()[order][places]).tolist()


def tabulate(
    log_density: Callable[[np.ndarray], np.ndarray], centers: list[np.ndarray]
) -> np.ndarray:
    """Return the mass of a log-density of two coordinates in each bin, up to a constant."""
    first, second = np.meshgrid(*centers, indexing="ij")
    points = np.stack([first.ravel(), second.ravel()], axis=-1)
    log_mass = np.asarray(log_density(points), float)
    if log_mass.shape != (len(points),):
        raise ValueError(
            f"Expected density to return log-densities of shape ({len(points)},), got "
            f"{log_mass.shape}."
        )
    mass = np.exp(log_mass - np.nanmax(log_mass)).reshape(first.shape)
    return np.nan_to_num(mass)
