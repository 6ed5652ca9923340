"""Curves of coverage against the level of credible regions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from afflow._tools.arguments import check_instance
from afflow.plots.panels import (
    BAND,
    BLUE,
    GREEN,
    LINE,
    PURPLE,
    SMALL,
    VERMILLION,
    take_panels,
    tidy,
)
from afflow.sbi.coverage import Coverage

# Curves differ in colour and in style, for readers who do not see the colours.
_STYLES = [(BLUE, "-"), (VERMILLION, "--"), (GREEN, "-."), (PURPLE, ":")]


def coverage_curve(coverage: Coverage | Mapping[str, Coverage], *, axes: Any = None) -> Figure:
    """Draw the coverage of credible regions against their level.

    The exact posterior is within the grey band at each level with the probability that was given to
    `sbi.estimate_coverage` or `sbi.estimate_tarp_coverage`. A curve of `estimate_coverage` below
    the diagonal shows a posterior that is too narrow (Hermans et al. 2022, arXiv:2110.06581).

    Args:
        coverage: the result of one of these functions, or up to four results with names. The band
            is the first result's.
        axes: the axes to draw in; by default those of a new figure.

    Raises:
        ValueError: for anything else, or another number of axes.

    Example:
        >>> import afflow, numpy as np
        >>> ranks = afflow.sbi.Ranks(np.arange(100)[:, None], 99)
        >>> levels = np.linspace(0, 1, 11)
        >>> exact = afflow.sbi.Coverage(levels, levels, levels - 0.1, levels + 0.1, ranks)
        >>> afflow.plots.coverage_curve(exact).axes[0].get_ylabel()
        'share of parameters within'
    """
    curves = coverage if isinstance(coverage, Mapping) else {"": coverage}
    if not 1 <= len(curves) <= len(_STYLES):
        raise ValueError(f"Expected 1 to {len(_STYLES)} coverages, got {len(curves)}.")
    for curve in curves.values():
        check_instance("coverage", curve, Coverage)
    figure, (panel,) = take_panels(axes, 1, size=(3.6, 3.4))
    first = next(iter(curves.values()))
    panel.fill_between(first.levels, first.lower, first.upper, color=BAND, linewidth=0)
    panel.plot([0, 1], [0, 1], color=LINE, linewidth=1)
    for (name, curve), (color, style) in zip(curves.items(), _STYLES, strict=False):
        panel.plot(curve.levels, curve.values, style, color=color, label=name, linewidth=1.8)
    if isinstance(coverage, Mapping):
        panel.legend(loc="upper left", fontsize=SMALL + 1, frameon=False)
    panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    tidy(panel)
    panel.set_xticks(np.linspace(0, 1, 5))
    panel.set_yticks(np.linspace(0, 1, 5))
    panel.set_xlabel("level of the region", fontsize=SMALL + 2)
    panel.set_ylabel("share of parameters within", fontsize=SMALL + 2)
    return figure
