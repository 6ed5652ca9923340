"""Saving and loading a model as one file, its parameters for other libraries, and its programs."""

from afflow.saving.archive import describe, load, save
from afflow.saving.exported import export
from afflow.saving.parameters import load_parameters, save_parameters

__all__ = ["describe", "export", "load", "load_parameters", "save", "save_parameters"]
