"""The settings behind the benchmark table: a model, a training, for each data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from flax import nnx

import afflow

UNIVARIATES: dict[str, Callable[[], afflow.Bijector]] = {
    "maf": afflow.Affine,
    "nsf": partial(afflow.RationalQuadraticSpline, 8, 3.0),
    "mixture": partial(afflow.MixtureCDF, 8),
}


@dataclass(frozen=True)
class Settings:
    """One model and its training.

    Attributes:
        num_layers: autoregressive layers.
        hidden: widths of the hidden layers of each MADE.
        residual: whether each MADE is residual.
        lu: LU-factored linear maps between the layers, in place of reversed orders.
        batch_size: rows in a minibatch.
        learning_rate: of Adam, decaying to zero by a cosine.
        weight_decay: of AdamW, times the learning rate.
        epochs: at most.
        patience: epochs without a better validation loss before training stops.
    """

    num_layers: int = 5
    hidden: tuple[int, ...] = (128, 128, 128)
    residual: bool = True
    lu: bool = True
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    epochs: int = 30
    patience: int = 30


def build(model: str, settings: Settings, train: np.ndarray, seed: int) -> afflow.Flow:
    """Return an untrained flow for the rows of `train`."""
    dim, rngs = train.shape[1], nnx.Rngs(seed)
    order = afflow.Permutation.random(dim, jax.random.key(seed))

    def step(rngs: nnx.Rngs) -> afflow.Bijector:
        univariate = UNIVARIATES[model]()
        made = afflow.MADE(
            dim,
            *univariate.context_shape,
            settings.hidden,
            residual=settings.residual,
            rngs=rngs,
        )
        mix = afflow.LU(dim, order) if settings.lu else afflow.Reverse(dim)
        return afflow.Chain([afflow.MaskedAutoregressive(made, univariate), mix])

    steps = afflow.Repeat(step, settings.num_layers, rngs=rngs)
    layers = [steps, afflow.Standardize.from_data(train)]
    return afflow.Flow(afflow.Normal(dim), afflow.Chain(layers))


FAST = {
    ("power", "nsf"): Settings(hidden=(128,) * 5, batch_size=256, learning_rate=7e-4, epochs=20),
    ("power", "maf"): Settings(num_layers=10, epochs=15),
    ("power", "mixture"): Settings(epochs=15),
}
PAPER = {
    ("power", "nsf"): Settings(
        num_layers=10, hidden=(256,) * 5, learning_rate=5e-4, epochs=123, patience=123
    ),
}
