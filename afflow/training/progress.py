"""A progress bar, if `tqdm` is installed."""

from contextlib import AbstractContextManager
from typing import Any

from afflow.training.run import Run


class NoBar(AbstractContextManager):
    """The stand-in for a progress bar that is not shown."""

    def __exit__(self, *error: Any) -> None:
        """Do nothing."""

    def compiling(self) -> None:
        """Show that the first steps are being compiled."""

    def show(self, run: Run) -> None:
        """Show the progress of a run."""


class Bar(NoBar):
    """A progress bar over all steps: steps per second, the time left, and the losses.

    Args:
        bar: a `tqdm` bar.
    """

    def __init__(self, bar: Any):
        self.bar = bar

    def __exit__(self, *error):
        self.bar.close()

    def compiling(self):
        self.bar.set_postfix_str("compiling")

    def show(self, run):
        losses = {"train": run.history.train, "validation": run.history.validation}
        self.bar.set_postfix(
            {name: f"{v[-1]:.4f}" for name, v in losses.items() if v}, refresh=False
        )
        self.bar.update(run.total - self.bar.n)


def make_progress_bar(total: int, run: Run, label: str, *, show: bool) -> NoBar:
    """Return a progress bar over `total` steps, which starts at the progress of `run`."""
    tqdm = find_tqdm() if show else None
    if tqdm is None:
        return NoBar()
    options: dict[str, Any] = {"unit": "step", "unit_scale": True, "dynamic_ncols": True}
    return Bar(tqdm(total=total, initial=run.total, desc=label or None, **options))


def find_tqdm() -> Any:
    """Return the class of the bars of `tqdm`, or `None` if `tqdm` is not installed."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm
