"""Figures of samples, of calibration, of training and of the layers of a flow.

Needs the library `matplotlib` (extra `plots`), which is imported when a name is first used. Each
function returns a `matplotlib.figure.Figure` and leaves the state of `pyplot` alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from afflow._tools.extras import import_extra

if TYPE_CHECKING:
    from afflow.plots.corners import corner
    from afflow.plots.coverages import coverage_curve
    from afflow.plots.epochs import SampleRecorder, samples_over_epochs
    from afflow.plots.grids import pushed_grid
    from afflow.plots.histograms import rank_histograms
    from afflow.plots.losses import training_curves

__all__ = [
    "SampleRecorder",
    "corner",
    "coverage_curve",
    "pushed_grid",
    "rank_histograms",
    "samples_over_epochs",
    "training_curves",
]

_HOMES = {
    "SampleRecorder": "epochs",
    "corner": "corners",
    "coverage_curve": "coverages",
    "pushed_grid": "grids",
    "rank_histograms": "histograms",
    "samples_over_epochs": "epochs",
    "training_curves": "losses",
}


def __getattr__(name: str) -> Any:
    """Import a plot, and matplotlib, at the first use of the plot's name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_extra("matplotlib", "plots", f"{name} needs")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
