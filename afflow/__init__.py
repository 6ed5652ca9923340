"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow.autoregressive import MaskedAutoregressive
from afflow.bases import (
    ClassConditional,
    DiagonalNormal,
    Laplace,
    LocationScale,
    Logistic,
    Mixture,
    MultivariateNormal,
    StudentT,
)
from afflow.bijector import Bijector, Inverse
from afflow.checks import check_bijector
from afflow.compose import Chain, Repeat
from afflow.conditioners import MADE, Conditioner
from afflow.continuous import (
    Continuous,
    ExactTrace,
    Hutchinson,
    MLPField,
    Trace,
    VectorField,
    cnf,
)
from afflow.dequantization import (
    Logit,
    VariationalDequantization,
    bits_per_dim,
    dequantize,
    quantize,
)
from afflow.distributions import Distribution, Flow, Normal, Uniform
from afflow.domains import CircularShift, Interval, Ordered, Positive, Simplex
from afflow.elementwise import Constant, Elementwise, Standardize
from afflow.flows import iaf, made, maf
from afflow.inversion import Incremental, Jacobi, Sequential, Solver
from afflow.permutations import Permutation, Reverse
from afflow.training import History, NonFiniteLossError, fit
from afflow.univariate import Affine

__version__ = "0.1.0"

__all__ = [
    "Affine",
    "Bijector",
    "Chain",
    "CircularShift",
    "ClassConditional",
    "Conditioner",
    "Constant",
    "Continuous",
    "DiagonalNormal",
    "Distribution",
    "Elementwise",
    "ExactTrace",
    "Flow",
    "History",
    "Hutchinson",
    "Incremental",
    "Interval",
    "Inverse",
    "Jacobi",
    "Laplace",
    "LocationScale",
    "Logistic",
    "Logit",
    "MADE",
    "MLPField",
    "MaskedAutoregressive",
    "Mixture",
    "MultivariateNormal",
    "NonFiniteLossError",
    "Normal",
    "Ordered",
    "Permutation",
    "Positive",
    "Repeat",
    "Reverse",
    "Sequential",
    "Simplex",
    "Solver",
    "Standardize",
    "StudentT",
    "Trace",
    "Uniform",
    "VariationalDequantization",
    "VectorField",
    "bits_per_dim",
    "check_bijector",
    "cnf",
    "dequantize",
    "fit",
    "iaf",
    "made",
    "maf",
    "quantize",
]
