"""Invertible maps of one event, and the solvers of their serial directions."""

from afflow.bijectors.actnorm import ActNorm, initialize_actnorm
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.batchnorm import BatchNorm, update_batchnorm
from afflow.bijectors.block_neural import BNAF
from afflow.bijectors.blockwise import Blockwise
from afflow.bijectors.compose import Chain, Inverse, Repeat
from afflow.bijectors.continuous import (
    Continuous,
    ExactTrace,
    Hutchinson,
    MLPField,
    Trace,
    VectorField,
)
from afflow.bijectors.coupling import Coupling
from afflow.bijectors.domains import (
    CircularShift,
    Exp,
    Interval,
    Logit,
    Ordered,
    Positive,
    Power,
    Probit,
    Simplex,
    Tanh,
)
from afflow.bijectors.elementwise import Elementwise, LeakyReLU, Standardize
from afflow.bijectors.embedding import Embedded, ZScores
from afflow.bijectors.image import Conv1x1, Patches, Reshape, Split, Squeeze, multiscale
from afflow.bijectors.linear import LU, Householder, Rotation, Triangular
from afflow.bijectors.permutations import Permutation, Reverse, Shuffle
from afflow.bijectors.planar import Planar
from afflow.bijectors.radial import Radial
from afflow.bijectors.solvers import FullPasses, Incremental, Jacobi, Solver
from afflow.bijectors.sylvester import Sylvester

__all__ = [
    "ActNorm",
    "BNAF",
    "BatchNorm",
    "Blockwise",
    "Chain",
    "CircularShift",
    "Continuous",
    "Conv1x1",
    "Coupling",
    "Elementwise",
    "Embedded",
    "ExactTrace",
    "Exp",
    "Householder",
    "Hutchinson",
    "Incremental",
    "Interval",
    "Inverse",
    "Jacobi",
    "LU",
    "LeakyReLU",
    "Logit",
    "MLPField",
    "MaskedAutoregressive",
    "Ordered",
    "Patches",
    "Permutation",
    "Planar",
    "Positive",
    "Power",
    "Probit",
    "Radial",
    "Repeat",
    "Reshape",
    "Reverse",
    "Rotation",
    "FullPasses",
    "Shuffle",
    "Simplex",
    "Solver",
    "Split",
    "Squeeze",
    "Standardize",
    "Sylvester",
    "Tanh",
    "Trace",
    "Triangular",
    "VectorField",
    "ZScores",
    "initialize_actnorm",
    "multiscale",
    "update_batchnorm",
]
