"""The settings behind the benchmark table: a model and a training for each data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import numpy as np
from flax import nnx

import afflow


@dataclass(frozen=True)
class Settings:
    """One model and its training.

    Attributes:
        num_layers: the number of autoregressive layers.
        hidden: the widths of the hidden layers of each MADE, or of the layers of a transformer,
            which are all as wide as the first.
        residual: whether each MADE is residual.
        activation: the hidden units of each MADE.
        dropout: the probability to drop a hidden unit of a MADE.
        base: the distribution that the flow starts from.
        lu: use LU-factored linear maps between the layers instead of reversed orders.
        batch_size: the number of rows in a minibatch.
        learning_rate: the learning rate of AdamW, which decays to zero by a cosine in each cycle.
        weight_decay: the weight decay of AdamW; a step multiplies it by the learning rate.
        ema: the decay of the moving average of the parameters; without it, the parameters of the
            best epoch.
        cycles: the number of epochs in each cycle (warm restarts: Loshchilov and Hutter 2017,
            arXiv:1608.03983).
        patience: the number of epochs without a better validation loss before a cycle stops.
        num_bins: the number of bins of each spline.
    """

    num_layers: int = 5
    hidden: tuple[int, ...] = (128, 128, 128)
    residual: bool = True
    activation: Literal["relu", "tanh"] = "relu"
    dropout: float = 0.0
    base: Literal["normal", "student_t"] = "normal"
    lu: bool = True
    batch_size: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    ema: float | None = None
    cycles: tuple[int, ...] = (2, 4, 8)
    patience: int = 20
    num_bins: int = 8


BASES: dict[str, Callable[[int], afflow.Distribution]] = {
    "normal": afflow.Normal,
    "student_t": partial(afflow.distributions.StudentT, df=10.0),
}
UNIVARIATES: dict[str, Callable[[Settings], afflow.Bijector]] = {
    "maf": lambda _: afflow.Affine(2.0),  # ten layers with scales up to e^7 send outliers far out
    "nsf": lambda settings: afflow.RationalQuadraticSpline(settings.num_bins, 3.0),
    "mixture": lambda _: afflow.univariates.MixtureCDF(5),
}


def build(model: str, settings: Settings, train: np.ndarray, seed: int) -> afflow.Flow:
    """Return an untrained flow for the rows of `train`."""
    dim, rngs = train.shape[1], nnx.Rngs(seed)
    if model == "tnaf":
        sizes = {"num_blocks": settings.num_layers, "num_layers": len(settings.hidden)}
        spline = partial(afflow.RationalQuadraticSpline, settings.num_bins, 5.0)
        options = {"width": settings.hidden[0], "univariate": spline, "data": train}
        return afflow.zoo.tnaf(dim, **sizes, **options, rngs=rngs)
    order = afflow.Permutation.random(dim, jax.random.key(0))  # checkpoints hold arrays only

    def step(rngs: nnx.Rngs) -> afflow.Bijector:
        univariate = UNIVARIATES[model](settings)
        made = afflow.MADE(
            dim,
            *univariate.context_shape,
            settings.hidden,
            residual=settings.residual,
            activation=getattr(jax.nn, settings.activation),
            dropout=settings.dropout,
            rngs=rngs,
        )
        mix = afflow.LU(dim, order) if settings.lu else afflow.Reverse(dim)
        return afflow.Chain([afflow.MaskedAutoregressive(made, univariate), mix])

    steps = afflow.Repeat(step, settings.num_layers, rngs=rngs)
    layers = [steps, afflow.Standardize.from_data(train)]
    return afflow.Flow(BASES[settings.base](dim), afflow.Chain(layers))


FAST = {
    ("power", "nsf"): Settings(learning_rate=2e-3, cycles=(40,), num_bins=16),
    ("power", "tnaf"): Settings(
        num_layers=2, hidden=(64, 64), learning_rate=2e-3, ema=0.999, cycles=(20,), num_bins=16
    ),
    ("power", "maf"): Settings(num_layers=10, ema=0.999, cycles=(12,)),
    ("miniboone_small", "maf"): Settings(
        hidden=(64,) * 3, batch_size=128, weight_decay=1.0, cycles=(60,)
    ),
    ("digits", "maf"): Settings(
        hidden=(64,) * 3, lu=False, batch_size=64, weight_decay=1.0, cycles=(60,)
    ),
    ("bsds300", "maf"): Settings(num_layers=8, base="student_t", ema=0.999, cycles=(16,)),
    ("bsds300", "mixture"): Settings(cycles=(16,)),
    ("bsds300", "nsf"): Settings(ema=0.999, cycles=(8,)),
    ("mnist", "maf"): Settings(
        hidden=(1024,),
        residual=False,
        activation="tanh",
        lu=False,
        batch_size=100,
        learning_rate=3e-4,
        weight_decay=2.0,
        ema=0.999,
        cycles=(10,),
    ),
    ("mnist", "mixture"): Settings(
        num_layers=1,
        hidden=(512,),
        residual=False,
        lu=False,
        batch_size=100,
        weight_decay=0.01,
        ema=0.999,
        cycles=(8,),
    ),
}


def maf_paper(*hidden: int) -> Settings:
    """Return the settings of Papamakarios et al. 2017, without their batch normalisation."""
    training = {"batch_size": 100, "learning_rate": 1e-4, "cycles": (1000,), "patience": 30}
    return Settings(hidden=hidden, residual=False, lu=False, **training)


def nsf_paper(width: int, batch_size: int, epochs: int) -> Settings:
    """Return the settings of Durkan et al. 2019, without their dropout."""
    training = {"batch_size": batch_size, "learning_rate": 5e-4, "cycles": (epochs,)}
    return Settings(10, (width,) * 5, patience=epochs, **training)


PAPER = {
    ("power", "maf"): maf_paper(100, 100),
    ("gas", "maf"): maf_paper(100, 100),
    ("hepmass", "maf"): maf_paper(512, 512),
    ("miniboone", "maf"): maf_paper(512, 512),
    ("bsds300", "maf"): maf_paper(512, 512),
    ("mnist", "maf"): maf_paper(1024),
    ("power", "nsf"): nsf_paper(256, 512, 123),
    ("gas", "nsf"): nsf_paper(256, 512, 240),
    ("hepmass", "nsf"): nsf_paper(256, 256, 325),
    ("miniboone", "nsf"): nsf_paper(64, 128, 1083),
    ("bsds300", "nsf"): nsf_paper(512, 512, 205),
}
