"""A progress bar, if `tqdm` is installed."""

from typing import Any


class NoBar:
    """Stands in for a progress bar."""

    def update(self, steps: int) -> None:
        """Count `steps` more."""

    def set_postfix(self, **values: str) -> None:
        """Show some values."""

    def close(self) -> None:
        """Leave the bar as it is."""


def progress_bar(total: int, done: int, label: str, *, show: bool) -> Any:
    """Return a bar over `total` steps: steps a second, the time left, and the losses."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return NoBar()
    options: dict[str, Any] = {"unit": "step", "unit_scale": True, "dynamic_ncols": True}
    return tqdm(total=total, initial=done, desc=label or None, **options) if show else NoBar()
