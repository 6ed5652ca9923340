"""The interface between a `Flow` and a bijector whose events are rows of a table."""

from abc import ABC, abstractmethod
from typing import Any


class Table(ABC):
    """A bijector whose events are rows of a table, before they become arrays of one float type."""

    @abstractmethod
    def enter(self, flow: Any) -> Any:
        """Return the model that a device runs, of the numbers that `encode` returns."""

    @abstractmethod
    def leave(self, model: Any) -> Any:
        """Wrap a model that `enter` returned, or a trained copy, in a flow of tables."""

    @abstractmethod
    def encode(self, table: Any) -> Any:
        """Return a table as an array of JAX's default float type."""

    @abstractmethod
    def decode(self, x: Any) -> Any:
        """Return an array of samples as a table."""


def table_of(model: Any) -> Table | None:
    """Return the table around a flow, if there is one."""
    bijector = getattr(model, "bijector", None)
    return bijector if isinstance(bijector, Table) else None
