"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow.autoregressive import MaskedAutoregressive
from afflow.bijector import Bijector, Inverse
from afflow.checks import check_bijector
from afflow.compose import Chain, Repeat
from afflow.conditioners import MADE, MLP, Conditioner, Graphical
from afflow.coupling import Coupling
from afflow.distributions import Distribution, Flow, Normal, Uniform
from afflow.elementwise import Constant, Elementwise, Standardize
from afflow.flows import coupling_flow, iaf, made, maf, nice, nsf, nsf_coupling, realnvp
from afflow.inversion import Incremental, Jacobi, Sequential, Solver
from afflow.neural_flows import bpf, naf, sospf, umnn
from afflow.permutations import Permutation, Reverse
from afflow.prefix import prefix_log_prob, sample_rest
from afflow.training import History, NonFiniteLossError, fit
from afflow.univariate import (
    UMNN,
    Additive,
    Affine,
    BernsteinPolynomial,
    CircularSpline,
    GaussianCDF,
    LogisticCDF,
    MixtureCDF,
    PerDimension,
    RationalQuadraticSpline,
    Sigmoidal,
    SumOfSquares,
)

__version__ = "0.1.0"

__all__ = [
    "MADE",
    "MLP",
    "UMNN",
    "Additive",
    "Affine",
    "BernsteinPolynomial",
    "Bijector",
    "Chain",
    "CircularSpline",
    "Conditioner",
    "Constant",
    "Coupling",
    "Distribution",
    "Elementwise",
    "Flow",
    "GaussianCDF",
    "Graphical",
    "History",
    "Incremental",
    "Inverse",
    "Jacobi",
    "LogisticCDF",
    "MaskedAutoregressive",
    "MixtureCDF",
    "NonFiniteLossError",
    "Normal",
    "PerDimension",
    "Permutation",
    "RationalQuadraticSpline",
    "Repeat",
    "Reverse",
    "Sequential",
    "Sigmoidal",
    "Solver",
    "Standardize",
    "SumOfSquares",
    "Uniform",
    "bpf",
    "check_bijector",
    "coupling_flow",
    "fit",
    "iaf",
    "made",
    "maf",
    "naf",
    "nice",
    "nsf",
    "nsf_coupling",
    "prefix_log_prob",
    "realnvp",
    "sample_rest",
    "sospf",
    "umnn",
]
