"""The autoregressive models of binary data, and the settings of each."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import afflow


@dataclass(frozen=True)
class Settings:
    """A model and its training.

    Attributes:
        hidden: the widths of the hidden layers.
        members: the number of masks or orders in an ensemble.
        endless: train on new masks at every step, not on the masks of the members.
        natural: draw random connections only, and give all members the natural order.
        dropout: the probability of dropping a hidden unit in an ensemble of masks.
        activation: the hidden units; by default those of the factory.
        batch_size: the number of rows in a minibatch.
        learning_rate: the learning rate of AdamW, which decays to zero by a cosine.
        weight_decay: the weight decay of AdamW; a step multiplies it by the learning rate.
        l2: half of this times the squared weights is added to the loss. Unlike weight decay, it
            does not depend on the scale of the gradients, and suits few rows.
        direct: add linear connections from input to output in MADE; by default if it is narrow.
        ema: the decay of an average of the parameters, which is then validated and scored.
        epochs: the largest number of epochs.
        patience: the number of epochs without a better validation loss before training stops.
    """

    hidden: tuple[int, ...] = (500,)
    members: int = 8
    endless: bool = False
    natural: bool = False
    dropout: float = 0.0
    activation: Literal["sigmoid", "tanh", "relu"] | None = None
    batch_size: int = 100
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    l2: float = 0.0
    direct: bool | None = None
    ema: float | None = None
    epochs: int = 100
    patience: int = 15


DEFAULTS = {
    "independent": Settings(hidden=(20,), weight_decay=1e-3),
    "made": Settings(hidden=(500,)),
    "made_ensemble": Settings(hidden=(500, 500), epochs=200),
    "eonade": Settings(hidden=(500,), epochs=300, patience=30),
}


def build(name: str, dim: int, settings: Settings, seed: int):
    """Return an untrained model."""
    rngs, hidden = nnx.Rngs(seed), settings.hidden
    units = {"activation": getattr(jax.nn, settings.activation)} if settings.activation else {}
    match name:
        case "fvsbn":
            return afflow.fvsbn(dim, rngs=rngs)
        case "independent":
            return afflow.zoo.independent_mlps(dim, hidden=hidden[0], **units, rngs=rngs)
        case "nade":
            return afflow.nade(dim, hidden=hidden[0], **units, rngs=rngs)
        case "made":
            return afflow.made_model(dim, hidden=hidden, direct=settings.direct, **units, rngs=rngs)
        case "made_ensemble":
            names = "natural", "endless", "dropout"
            options = {name: getattr(settings, name) for name in names}
            masks = settings.members
            return afflow.zoo.made_ensemble(
                dim, hidden=hidden, num_masks=masks, **options, **units, rngs=rngs
            )
        case _:
            orders = settings.members
            return afflow.zoo.eonade(dim, hidden=hidden, num_orders=orders, **units, rngs=rngs)


def start_at_means(model, train: np.ndarray):
    """Set the output biases to the logits of the mean of every coordinate; return the model."""
    mean = (train.sum(0) + 0.5) / (len(train) + 1)
    logits = jnp.log(mean / (1 - mean))
    part = model.conditioner if hasattr(model, "conditioner") else model.network
    bias = part.b if hasattr(part, "b") else part.biases[-1]
    bias[...] = logits.reshape(bias[...].shape).astype(bias[...].dtype)
    return model
