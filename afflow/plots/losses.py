"""Losses against epochs."""

from typing import Any

from matplotlib.figure import Figure

from afflow._tools.arguments import check_instance
from afflow.plots.panels import BLUE, LINE, SMALL, VERMILLION, set_ticks, take_panels, tidy
from afflow.training.history import History


def training_curves(history: History, *, axes: Any = None) -> Figure:
    """Draw the training and the validation loss of each epoch, in nats, and mark the best epoch.

    The training loss is the mean over the minibatches while the parameters change. Early in
    training it is therefore above the validation loss.

    Args:
        history: the second result of `fit`.
        axes: the axes to draw in; by default those of a new figure.

    Raises:
        ValueError: for anything but a `History` with an epoch, or another number of axes.

    Example:
        >>> import afflow
        >>> history = afflow.training.History([3.0, 2.0, 1.5], [2.5, 1.9, 2.0], 1)
        >>> figure = afflow.plots.training_curves(history)
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['training', 'validation', 'best epoch: 1']
    """
    check_instance("history", history, History)
    if not history.train:
        raise ValueError("Expected a history of at least one epoch, got none.")
    figure, (panel,) = take_panels(axes, 1, size=(5.0, 3.0))
    panel.plot(history.train, "--", color=VERMILLION, label="training", linewidth=1.5)
    if history.validation:
        panel.plot(history.validation, color=BLUE, label="validation", linewidth=1.8)
    best, losses = history.best_epoch, history.validation or history.train
    color = BLUE if history.validation else VERMILLION
    panel.plot(best, losses[best], "o", color=color, label=f"best epoch: {best}")
    panel.axvline(best, color=LINE, linewidth=0.8, linestyle=":")
    tidy(panel, num_ticks=6)
    set_ticks(panel.xaxis, 8, integer=True)
    panel.set_xlabel("epoch", fontsize=SMALL + 2)
    panel.set_ylabel("loss (nats)", fontsize=SMALL + 2)
    panel.legend(fontsize=SMALL + 1, frameon=False)
    return figure
