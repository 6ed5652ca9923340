"""The interface between a `Flow` and a bijector that takes rows of a table."""

from abc import ABC, abstractmethod
from typing import Any


class Table(ABC):
    """A bijector whose events are rows of a table, not yet arrays of one float type."""

    @abstractmethod
    def enter(self, flow: Any) -> Any:
        """Return the model of the encoded numbers, which runs on the device."""

    @abstractmethod
    def leave(self, model: Any) -> Any:
        """Return the flow over tables around a model that `enter` returned, or a trained copy."""

    @abstractmethod
    def encode(self, table: Any) -> Any:
        """Encode a table as an array of JAX's default float type."""

    @abstractmethod
    def decode(self, x: Any) -> Any:
        """Decode an array of samples to a table."""


def get_table(model: Any) -> Table | None:
    """Return the bijector of a flow if it is a `Table`, else `None`."""
    bijector = getattr(model, "bijector", None)
    return bijector if isinstance(bijector, Table) else None
