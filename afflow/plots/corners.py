"""Corner plots: the marginals of samples, one coordinate and two coordinates at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from afflow._tools.arguments import check_callable
from afflow.plots.panels import (
    BLUE,
    SMALL,
    VERMILLION,
    check_names,
    check_rows,
    take_panels,
    tidy,
)
from afflow.plots.smoothing import find_heights, find_limits, make_centers, smooth, tabulate

_SHARES = (0.95, 0.68)
_FILLS = ("0.88", "0.72")  # the greys of the regions of the data, from the outside


def corner(
    samples: jax.Array | np.ndarray,
    *,
    data: jax.Array | np.ndarray | None = None,
    names: Sequence[str] | None = None,
    density: Callable[..., Any] | None = None,
    axes: Any = None,
) -> Figure:
    """Draw the marginals of samples over the marginals of data.

    The panels on the diagonal show the density of one coordinate. The panels below it show the
    regions of two coordinates that hold 68 % and 95 % of the samples. Lines are the samples, and
    grey areas the data. The densities are kernel estimates (Silverman 1986). An axis spans the
    central 99 % of the samples and of the data, and margins.

    Args:
        samples: `(N, D)`.
        data: `(M, D)`, such as held-out data or samples of a reference.
        names: the names of the coordinates; by default their numbers, from 0.
        density: a log-density in nats of events `(K, 2)`, `flow.log_prob` say, to draw too as
            dashed lines; for `D = 2` only. Its marginals are sums over the visible region.
        axes: `D * D` axes to draw in, row by row; by default those of a new figure.

    Raises:
        ValueError: for samples or data of other shapes or that are not finite, for another number
            of names or axes, or for a density if `D` is not 2.

    Example:
        >>> import afflow, jax
        >>> samples = jax.random.normal(jax.random.key(0), (500, 3))
        >>> figure = afflow.plots.corner(samples, names=["mass", "spin", "distance"])
        >>> figure.savefig("/dev/null", format="png")
    """
    samples = check_rows("samples", samples)
    dim = samples.shape[1]
    if density is not None and dim != 2:
        raise ValueError(f"Expected samples of 2 coordinates beside a density, got {dim}.")
    if density is not None:
        check_callable("density", density, "flow.log_prob")
    labels = check_names(names, dim)
    data = None if data is None else check_rows("data", data, dim)
    parts = [samples] if data is None else [samples, data]
    spans = np.array([[find_limits(column) for column in part.T] for part in parts])
    limits = zip(spans[..., 0].min(0), spans[..., 1].max(0), strict=True)
    centers = [make_centers(pair) for pair in limits]
    mass = None if density is None else tabulate(density, centers)
    figure, panels = take_panels(axes, dim * dim, size=(1.9, 1.9), columns=dim)
    for place, panel in enumerate(panels):
        row, column = divmod(place, dim)
        if column > row:
            panel.set_axis_off()
        elif column == row:
            _draw_marginal(panel, row, centers[row], samples, data, mass)
        else:
            _draw_pair(panel, [column, row], centers, samples, data, mass)
        _label(panel, row, column, labels)
    _add_legend(panels[dim - 1], data is not None, density is not None)
    figure.align_labels()
    return figure


def _draw_marginal(panel, number, centers, samples, data, mass) -> None:
    """Draw the densities of one coordinate."""
    step = centers[1] - centers[0]
    if data is not None:
        density, _ = smooth(data[:, [number]], [centers])
        panel.fill_between(centers, density / step, color=_FILLS[1], linewidth=0)
    density, _ = smooth(samples[:, [number]], [centers])
    panel.plot(centers, density / step, color=BLUE, linewidth=1.5)
    if mass is not None:
        marginal = mass.sum(1 - number)
        marginal = marginal / (marginal.sum() * step)
        panel.plot(centers, marginal, color=VERMILLION, linestyle="--", linewidth=1.5)
    panel.set_xlim(centers[0], centers[-1])
    panel.set_ylim(bottom=0)


def _draw_pair(panel, numbers, centers, samples, data, mass) -> None:
    """Draw the regions of two coordinates."""
    grid = [centers[number] for number in numbers]
    if data is not None:
        density, raw = smooth(data[:, numbers], grid)
        heights = find_heights(density, raw, _SHARES)
        fills = _FILLS[-len(heights) :]
        panel.contourf(*grid, density.T, [*heights, density.max() * 1.01], colors=fills)
    density, raw = smooth(samples[:, numbers], grid)
    heights = find_heights(density, raw, _SHARES)
    panel.contour(*grid, density.T, heights, colors=BLUE, linewidths=1.5)
    if mass is not None:
        heights = find_heights(mass, mass, _SHARES)
        panel.contour(
            *grid, mass.T, heights, colors=VERMILLION, linestyles="dashed", linewidths=1.5
        )
    panel.set_xlim(grid[0][0], grid[0][-1])
    panel.set_ylim(grid[1][0], grid[1][-1])


def _label(panel: Axes, row: int, column: int, labels: list[str]) -> None:
    """Name the axes at the left and at the bottom, and leave the other panels without names."""
    if column > row:
        return
    tidy(panel, num_ticks=3)
    if row == column:
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
    is_left, is_bottom = column == 0 and row > 0, row == len(labels) - 1
    panel.tick_params(labelleft=is_left, labelbottom=is_bottom)
    if is_left:
        panel.set_ylabel(labels[row], fontsize=SMALL + 1)
    if is_bottom:
        panel.set_xlabel(labels[column], fontsize=SMALL + 1)


def _add_legend(panel: Axes, with_data: bool, with_density: bool) -> None:  # noqa: FBT001
    """Name the lines and areas at the upper right, if there is more than one kind."""
    handles: list[Any] = [Line2D([], [], color=BLUE, label="samples")]
    if with_data:
        handles.append(Patch(color=_FILLS[1], label="data"))
    if with_density:
        handles.append(Line2D([], [], color=VERMILLION, linestyle="--", label="density"))
    if len(handles) > 1:
        panel.legend(handles=handles, loc="upper right", fontsize=SMALL, frameon=False)
