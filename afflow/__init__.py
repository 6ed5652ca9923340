"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow.autoregressive import MaskedAutoregressive
from afflow.bijector import Bijector, Inverse
from afflow.checks import check_bijector
from afflow.compose import Chain, Repeat
from afflow.conditioners import MADE, Conditioner
from afflow.distributions import Distribution, Flow, Normal, Uniform
from afflow.elementwise import Constant, Elementwise, Standardize
from afflow.flows import iaf, made, maf
from afflow.inversion import Incremental, Jacobi, Sequential, Solver
from afflow.linear import LU, Householder, Rotation, Triangular
from afflow.permutations import Permutation, Reverse
from afflow.training import History, NonFiniteLossError, fit
from afflow.univariate import Affine

__version__ = "0.1.0"

__all__ = [
    "Affine",
    "Bijector",
    "Chain",
    "Conditioner",
    "Constant",
    "Distribution",
    "Elementwise",
    "Flow",
    "History",
    "Householder",
    "Incremental",
    "Inverse",
    "Jacobi",
    "LU",
    "MADE",
    "MaskedAutoregressive",
    "NonFiniteLossError",
    "Normal",
    "Permutation",
    "Repeat",
    "Reverse",
    "Rotation",
    "Sequential",
    "Solver",
    "Standardize",
    "Triangular",
    "Uniform",
    "check_bijector",
    "fit",
    "iaf",
    "made",
    "maf",
]
