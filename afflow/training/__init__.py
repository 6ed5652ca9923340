"""Training: functions that take a model and return a new one."""

from afflow.training.fit import History, NonFiniteLossError, fit

__all__ = [
    "History",
    "NonFiniteLossError",
    "fit",
]
