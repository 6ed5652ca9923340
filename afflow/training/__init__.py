"""Training: functions that take a model and return a new one."""

from afflow.training.callbacks import CSVLogger, Epoch, ScalarLogger
from afflow.training.checkpoint import Checkpoint
from afflow.training.ensemble import Ensemble, fit_ensemble
from afflow.training.fitting import fit
from afflow.training.history import History, NonFiniteLossError
from afflow.training.loop import train
from afflow.training.objectives import maximum_likelihood, observed_likelihood
from afflow.training.parquet import read_parquet
from afflow.training.rate_search import RateSearch, find_learning_rate
from afflow.training.stream import Stream
from afflow.training.trainable import paths_of
from afflow.training.windows import cut_windows

__all__ = [
    "CSVLogger",
    "Checkpoint",
    "Ensemble",
    "Epoch",
    "History",
    "NonFiniteLossError",
    "ScalarLogger",
    "RateSearch",
    "Stream",
    "find_learning_rate",
    "fit",
    "fit_ensemble",
    "maximum_likelihood",
    "observed_likelihood",
    "paths_of",
    "read_parquet",
    "train",
    "cut_windows",
]
