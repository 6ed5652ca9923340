"""A picture of test scores against training times, one panel a data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

MARKERS = {"afflow": "o", "flowjax": "s", "zuko": "^", "nflows": "D"}
COLORS = {"maf": "tab:blue", "nsf": "tab:orange"}
Results = Mapping[str, Mapping[str, float]]
"""Scores with `mean` and perhaps `seconds`, by `"DATASET MODEL LIBRARY SEED"`."""


class Point(NamedTuple):
    """The mean seconds and the mean test nats of a library over seeds."""

    seconds: float
    nats: float


def has_times(results: Results) -> bool:
    """Return whether any result has a training time."""
    return any("seconds" in result for result in results.values())


def find_points(results: Results) -> dict[str, dict[tuple[str, str], Point]]:
    """Return the points of each data set, by model and library, over the seeds that have a time."""
    pairs: dict[str, dict[tuple[str, str], list[Point]]] = {}
    for key, result in results.items():
        if "seconds" in result:
            name, model, library, _ = key.split()
            panel = pairs.setdefault(name, {}).setdefault((model, library), [])
            panel.append(Point(result["seconds"], result["mean"]))
    return {
        name: {key: Point(*np.mean(seeds, 0)) for key, seeds in panel.items()}
        for name, panel in pairs.items()
    }


def draw_times(results: Results, path: Path) -> None:
    """Draw a panel for each data set, with a marker for each library and a color for each model."""
    panels = find_points(results)
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    size = (max(3.0 * columns, 4.2), 2.6 * rows + 0.6)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, points) in zip(axes.flat, panels.items(), strict=False):
        _draw_panel(axis, name, points)
    figure.supxlabel("seconds of training, with compilation", fontsize=9)
    figure.supylabel("test log-likelihood (nats)", fontsize=9)
    figure.legend(handles=_make_handles(), loc="outside upper center", ncols=6, fontsize=7)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _draw_panel(axis: Axes, name: str, points: dict[tuple[str, str], Point]) -> None:
    for (model, library), point in points.items():
        axis.plot(point.seconds, point.nats, MARKERS[library], color=COLORS[model], alpha=0.8)
    decades = np.log10([point.seconds for point in points.values()])
    ends = 10 ** np.floor(decades.min()), 10 ** (np.floor(decades.max()) + 1)
    axis.set(title=name, xscale="log", xlim=ends)
    axis.xaxis.set_minor_formatter(NullFormatter())


def _make_handles() -> list[Line2D]:
    """Return the entries of the legend."""
    libraries = [
        Line2D([], [], color="grey", marker=marker, linestyle="", label=library)
        for library, marker in MARKERS.items()
    ]
    return libraries + [Line2D([], [], color=c, label=model) for model, c in COLORS.items()]
