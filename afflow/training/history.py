"""The history of a training run's losses, and the error for a loss that is not finite."""

from typing import Any, NamedTuple


class History(NamedTuple):
    """Mean losses after each epoch; for maximum likelihood in nats.

    `train[i]` is the mean over the minibatches of epoch `i` during training. `validation[i]` is the
    mean over the held-out data after epoch `i`, and empty without held-out data. `best_epoch` is
    the epoch of the returned parameters.
    """

    train: list[float]
    validation: list[float]
    best_epoch: int

    def after(self, train: float, validation: float | None) -> "History":
        """Return the history with one more epoch."""
        more = [] if validation is None else [validation]
        return self._replace(train=[*self.train, train], validation=[*self.validation, *more])


class NonFiniteLossError(FloatingPointError):
    """The error for a loss or a parameter that is infinite or NaN, with the best model so far.

    Attributes:
        epoch: the epoch of the event, counted from 0.
        flow: the best model before that epoch.
        history: the losses up to and including that epoch.
    """

    def __init__(self, epoch: int, flow: Any, history: History):
        super().__init__(
            f"Expected a finite loss and finite parameters, got train {history.train[-1]} and "
            f"validation {history.validation[-1] if history.validation else 'not yet known'} in "
            f"epoch {epoch}. Usual causes: data far from unit scale (standardise them), rows "
            f"outside the support of the model, a log-density to fit that is not finite where the "
            f"flow samples, or a learning rate that is too large. The best "
            f"model so far is in this error's `.flow`."
        )
        self.epoch, self.flow, self.history = epoch, flow, history
