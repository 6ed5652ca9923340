"""Training: functions that take a model and return a new one."""

from afflow.training.fit import fit
from afflow.training.history import History, NonFiniteLossError
from afflow.training.loop import train
from afflow.training.objectives import maximum_likelihood

__all__ = ["History", "NonFiniteLossError", "fit", "maximum_likelihood", "train"]
