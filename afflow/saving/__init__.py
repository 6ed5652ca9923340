"""A model in one file."""

from afflow.saving.archive import load, save

__all__ = ["load", "save"]
