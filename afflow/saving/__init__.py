"""Saving and loading a model as one file."""

from afflow.saving.archive import load, save

__all__ = ["load", "save"]
