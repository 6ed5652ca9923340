"""What training leaves behind beside a model."""

from typing import Any, NamedTuple


class History(NamedTuple):
    """Mean losses after each epoch; for maximum likelihood in nats.

    `train[i]` is the mean over the minibatches of epoch `i` as they were trained on,
    `validation[i]` that of the held-out data after the epoch (empty without any), and
    `best_epoch` the epoch of the returned parameters.
    """

    train: list[float]
    validation: list[float]
    best_epoch: int

    def after(self, train: float, validation: float | None) -> "History":
        """Return the history with one epoch more."""
        more = [] if validation is None else [validation]
        return self._replace(train=[*self.train, train], validation=[*self.validation, *more])


class NonFiniteLossError(FloatingPointError):
    """The loss or a parameter turned infinite or NaN; nothing trained before is lost.

    Attributes:
        epoch: the epoch, counted from 0, of the event.
        flow: the best model before it.
        history: the losses up to and including that epoch.
    """

    def __init__(self, epoch: int, flow: Any, history: History):
        super().__init__(
            f"Expected a finite loss and finite parameters, got train {history.train[-1]} and "
            f"validation {history.validation[-1:] or None} in epoch {epoch}: try a smaller "
            f"learning rate, or standardised data. The best model so far is in this error's "
            f"`.flow`."
        )
        self.epoch, self.flow, self.history = epoch, flow, history
