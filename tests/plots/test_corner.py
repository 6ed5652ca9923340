"""Corner plots: panels, names, and regions that hold the share of the mass that they should."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from matplotlib.figure import Figure
from matplotlib.path import Path
from render import find_overlaps, render

from afflow.plots import corner
from afflow.plots.smoothing import find_heights, make_centers, smooth

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(4000, 2)) @ [[1.0, 0.6], [0.0, 0.8]]


def log_density(x):
    return scipy.stats.multivariate_normal([0, 0], [[1.0, 0.6], [0.6, 1.0]]).logpdf(x)


def find_paths(panel):
    """Return the lines of each contour of a panel, in the order of drawing."""
    return [path for contour in panel.collections for path in contour.get_paths()]


def share_within(path, rows):
    return Path.contains_points(path, rows).mean()


def test_regions_hold_their_share_of_the_samples():
    """Check the outlines of both areas of the data, and both lines of the samples, to a bin."""
    rows = ROWS[:, [0]] ** [1, 2] * [1.0, 50.0] + RNG.normal(size=ROWS.shape) * [0.1, 20.0]
    figure = render(corner(rows, data=rows[::-1]))
    shares = [share_within(path, rows) for path in find_paths(figure.axes[2])]
    assert shares == pytest.approx([0.95, 0.68, 0.95, 0.68], abs=0.02)


def test_regions_of_a_density_are_exact():
    density = lambda x: log_density(x) + 1000.0  # noqa: E731 (unnormalised)
    figure = render(corner(ROWS, density=density))
    outer, inner = find_paths(figure.axes[2])[-2:]
    for path, share in [(outer, 0.95), (inner, 0.68)]:
        radius = np.sqrt(scipy.stats.chi2.ppf(share, 2))
        distances = np.sqrt(-2 * (log_density(path.vertices) - log_density([0, 0])))
        assert distances == pytest.approx(radius, abs=0.1)
    line = figure.axes[0].lines[1]
    assert line.get_ydata() == pytest.approx(scipy.stats.norm.pdf(line.get_xdata()), abs=0.01)


def test_marginals_are_densities_of_each_coordinate():
    figure = render(corner(ROWS * [1.0, 50.0]))
    for panel, scale in [(figure.axes[0], 1.0), (figure.axes[3], 50.0)]:
        (line,) = panel.lines
        expected = scipy.stats.norm.pdf(line.get_xdata(), scale=scale)
        assert line.get_ydata() * scale == pytest.approx(expected * scale, abs=0.03)


def test_smoothing_keeps_the_mass_and_adds_the_variance_of_the_kernel():
    rows = ROWS * [1.0, 2.0]
    centers = [make_centers((-6.0, 6.0)), make_centers((-12.0, 12.0))]
    smoothed, raw = smooth(rows, centers)
    assert smoothed.sum() == pytest.approx(1)
    assert raw.sum() == pytest.approx(1)
    points = np.stack(np.meshgrid(*centers, indexing="ij"), -1).reshape(-1, 2)
    before, after = (np.cov(points.T, aweights=mass.ravel()) for mass in (raw, smoothed))
    spread = np.minimum(rows.std(0), scipy.stats.iqr(rows, axis=0) / 1.34)
    assert after - before == pytest.approx(np.diag(spread**2 / 4000 ** (1 / 3)), rel=0.02, abs=1e-3)


def test_heights_of_discrete_masses():
    density, mass = np.array([[3.0, 1.0], [2.0, 0.5]]), np.array([[0.5, 0.1], [0.3, 0.1]])
    assert find_heights(density, mass, (0.95, 0.7)) == [0.5, 2.0]


def test_panels_and_names():
    rows = RNG.normal(size=(300, 3)) * [1e-4, 1.0, 1e5] + [0.0, 1000.0, 0.0]
    names = ["spin of the second star", "mass", r"$\theta_2$"]
    figure = render(corner(rows, data=rows[::2] + 1e-5, names=names))
    grid = np.reshape(figure.axes, (3, 3))
    assert [panel.axison for panel in grid.ravel()] == [True, False, False] + [
        True,
        True,
        False,
    ] + [True] * 3
    assert [panel.get_xlabel() for panel in grid[2]] == ["spin of the\nsecond star", *names[1:]]
    assert [panel.get_ylabel() for panel in grid[:, 0]] == ["", *names[1:]]
    assert [text.get_text() for text in grid[0, 2].get_legend().get_texts()] == ["samples", "data"]
    assert find_overlaps(figure) == []
    for column in range(3):  # panels of one column share an axis
        assert len({panel.get_xlim() for panel in grid[column:, column]}) == 1
        low, high = grid[2, column].get_xlim()
        assert ((rows[:, column] > low) & (rows[:, column] < high)).mean() > 0.98


def test_given_axes_and_one_coordinate():
    axes = Figure().subplots(2, 2)
    assert corner(jnp.asarray(ROWS), axes=axes) is axes[0, 0].figure
    assert len(axes[0, 0].lines) == 1
    assert len(render(corner(ROWS[:, :1])).axes) == 1


def test_constant_and_discrete_coordinates_are_drawn():
    rows = np.stack([np.ones(100), RNG.integers(0, 2, 100)], axis=-1)
    assert find_overlaps(render(corner(rows, data=rows))) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": np.zeros(5)}, r"samples.shape \(N, D\)"),
        ({"samples": np.full((5, 2), np.nan)}, "Expected finite samples"),
        ({"data": np.zeros((5, 3))}, r"data.shape \(N, 2\), N > 1, got \(5, 3\)"),
        ({"names": ["a"]}, "Expected 2 names"),
        ({"axes": Figure().subplots(1, 2)}, "Expected 4 axes"),
        ({"samples": np.eye(3), "density": log_density}, "2 coordinates beside a density, got 3"),
        ({"density": lambda x: np.zeros(3)}, r"shape \(10000,\), got \(3,\)"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        corner(**({"samples": ROWS} | options))


def test_data_far_from_the_samples_are_seen():
    rng = np.random.default_rng(0)
    samples, data = rng.normal(size=(20_000, 2)), rng.normal(size=(50, 2)) + 100
    figure = render(corner(samples, data=data))
    low, high = figure.axes[2].get_xlim()
    assert low < -2
    assert high > 101
