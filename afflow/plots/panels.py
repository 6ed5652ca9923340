"""Panels to draw in, and the colours and labels that all figures share."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, MaxNLocator

from afflow._tools.arrays import real_array

# Of the colours that Okabe and Ito chose for readers with and without colour blindness.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
BAND, LINE = "0.85", "0.4"  # greys
SMALL = 8  # points


def take_panels(
    axes: Any, num: int, *, size: tuple[float, float], columns: int = 4
) -> tuple[Figure, list[Axes]]:
    """Return a figure and `num` panels: those in `axes`, or new ones.

    Args:
        axes: `num` axes of matplotlib in any shape, or `None` for a new figure.
        num: the number of panels.
        size: the width and height of a new panel, in inches.
        columns: the largest number of new panels in a row.

    Raises:
        ValueError: for another number of axes.
    """
    if axes is None:
        rows = -(-num // columns)
        columns = -(-num // rows)  # as many in each row, if possible
        figure = Figure((columns * size[0], rows * size[1]), layout="constrained")
        return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(num)]
    panels: list[Any] = list(np.ravel(axes))
    if len(panels) != num or not all(isinstance(panel, Axes) for panel in panels):
        raise ValueError(f"Expected {num} axes of matplotlib, got {axes!r}.")
    return panels[0].figure, panels


class Compact(Formatter):
    """Labels of ticks with equal decimals, and with powers of ten for large and small numbers.

    Matplotlib writes one power beside the axis, where it collides with titles and names.
    """

    def __init__(self):
        self._ticks: list[float] = []

    def set_locs(self, locs: Any) -> None:
        """Take the places of all ticks, before matplotlib asks for their labels."""
        self._ticks = [float(tick) for tick in locs]

    def __call__(self, x: float, pos: int | None = None) -> str:
        largest = float(np.max(np.abs([*self._ticks, x])))
        power = 0 if largest == 0 or 1e-2 <= largest < 1e5 else math.floor(math.log10(largest))
        ticks = np.array([*self._ticks, x]) / 10.0**power
        decimals = next(d for d in range(13) if d == 12 or _are_whole(ticks * 10.0**d))
        label = f"{ticks[-1]:.{decimals}f}"
        return self.fix_minus(f"{label}e{power}" if power and float(label) else label)


def _are_whole(values: np.ndarray) -> bool:
    return bool((abs(values - values.round()) < 1e-6 * max(abs(values).max(), 1)).all())


def tidy(panel: Axes, num_ticks: int = 4) -> None:
    """Draw few and short labels of ticks, and no box."""
    for axis in (panel.xaxis, panel.yaxis):
        set_ticks(axis, num_ticks)
    panel.tick_params(labelsize=SMALL)
    panel.spines[["top", "right"]].set_visible(False)


def set_ticks(axis: Axis, num: int, *, integer: bool = False) -> None:
    """Place about `num` ticks at round numbers."""
    axis.set_major_locator(MaxNLocator(num, steps=[1, 2, 2.5, 5, 10], integer=integer))
    axis.set_major_formatter(Compact())


def check_names(names: Sequence[str] | None, num: int) -> list[str]:
    """Return `num` names with line breaks, by default of the coordinates of a vector.

    Raises:
        ValueError: for another number of names.
    """
    if names is None:
        return [f"$x_{{{i}}}$" for i in range(num)]
    if isinstance(names, str) or len(names) != num:
        raise ValueError(f"Expected {num} names, got {names!r}.")
    return [name if "$" in name else textwrap.fill(name, 16) for name in names]


def check_rows(name: str, value: Any, dim: int | None = None) -> np.ndarray:
    """Return rows `(N, D)` as float64 with at least two rows, or raise `ValueError`."""
    rows = np.asarray(real_array(name, value), float)
    if rows.ndim != 2 or len(rows) < 2 or rows.shape[1] != (dim or rows.shape[1]):
        raise ValueError(f"Expected {name}.shape (N, {dim or 'D'}), N > 1, got {rows.shape}.")
    if not np.isfinite(rows).all():
        raise ValueError(f"Expected finite {name}, got infinity or NaN.")
    return rows
