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
from afflow.neural_flows import bpf, naf, sospf, umnn
from afflow.permutations import Permutation, Reverse
from afflow.training import History, NonFiniteLossError, fit
from afflow.univariate import (
    UMNN,
    Affine,
    BernsteinPolynomial,
    GaussianCDF,
    LogisticCDF,
    MixtureCDF,
    PerDimension,
    Sigmoidal,
    SumOfSquares,
)

__version__ = "0.1.0"

__all__ = [
    "Affine",
    "BernsteinPolynomial",
    "Bijector",
    "Chain",
    "Conditioner",
    "Constant",
    "Distribution",
    "Elementwise",
    "Flow",
    "GaussianCDF",
    "History",
    "Incremental",
    "Inverse",
    "Jacobi",
    "LogisticCDF",
    "MADE",
    "MaskedAutoregressive",
    "MixtureCDF",
    "NonFiniteLossError",
    "Normal",
    "PerDimension",
    "Permutation",
    "Repeat",
    "Reverse",
    "Sequential",
    "Sigmoidal",
    "Solver",
    "Standardize",
    "SumOfSquares",
    "UMNN",
    "Uniform",
    "bpf",
    "check_bijector",
    "fit",
    "iaf",
    "made",
    "maf",
    "naf",
    "sospf",
    "umnn",
]
