"""Histograms of ranks, with the bands of uniform ranks."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from afflow._tools.arguments import check_instance
from afflow.plots.panels import BAND, BLUE, LINE, SMALL, check_names, take_panels, tidy
from afflow.sbi.ranks import Ranks
from afflow.sbi.uniformity import bin_ranks


def rank_histograms(
    ranks: Ranks,
    *,
    names: Sequence[str] | None = None,
    num_bins: int | None = None,
    level: float = 0.99,
    axes: Any = None,
) -> Figure:
    r"""Draw the histogram of each parameter's ranks over the band of uniform ranks.

    The exact posterior has a bar within the band with probability `level`. A valley in the middle
    shows a posterior that is too narrow, a hill one that is too wide, and a slope one that is
    shifted (Talts et al. 2018, arXiv:1804.06788).

    Args:
        ranks: the result of `sbi.compute_ranks`, for D parameters.
        names: the names of the parameters; by default their numbers, from 0.
        num_bins: the number of bins; see `sbi.bin_ranks` for the default.
        level: the probability that a bar is within its band.
        axes: D axes to draw in; by default those of a new figure.

    Raises:
        ValueError: for another number of names or axes, or as `sbi.bin_ranks` does.

    Example:
        >>> import afflow, numpy as np
        >>> values = np.random.default_rng(0).integers(0, 100, size=(400, 2))
        >>> figure = afflow.plots.rank_histograms(afflow.sbi.Ranks(values, 99))
        >>> len(figure.axes)
        2
    """
    check_instance("ranks", ranks, Ranks)
    found = bin_ranks(ranks, num_bins=num_bins, level=level)
    titles = check_names(names, found.counts.shape[1])
    figure, panels = take_panels(axes, len(titles), size=(2.8, 2.2))
    edges = found.edges - 0.5
    for title, panel, counts in zip(titles, panels, found.counts.T, strict=True):
        panel.stairs(found.upper, edges, baseline=found.lower, fill=True, color=BAND)
        panel.stairs(found.expected, edges, color=LINE, linewidth=1, linestyle="--", baseline=None)
        panel.stairs(counts, edges, fill=True, color=BLUE, alpha=0.2)
        panel.stairs(counts, edges, color=BLUE, linewidth=1.5)
        panel.set_xlim(edges[0], edges[-1])
        panel.set_title(title, fontsize=SMALL + 2)
        panel.set_xlabel(f"rank among {ranks.num_samples} samples", fontsize=SMALL + 1)
        tidy(panel)
        panel.set_ylim(0, 1.08 * max(found.counts.max(), found.upper.max()))
    panels[0].set_ylabel("observations", fontsize=SMALL + 1)
    return figure
