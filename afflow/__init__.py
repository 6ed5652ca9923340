"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow.actnorm import ActNorm, initialize_actnorm
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
from afflow.batchnorm import BatchNorm, update_batchnorm
from afflow.bijector import Bijector, Inverse
from afflow.checks import check_bijector
from afflow.compose import Chain, Repeat
from afflow.conditioners import MADE, MLP, Conditioner, ConvNet, Graphical, Periodic
from afflow.continuous import Continuous, ExactTrace, Hutchinson, MLPField, Trace, VectorField, cnf
from afflow.coupling import Coupling
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
from afflow.flows import coupling_flow, iaf, made, maf, nice, nsf, nsf_coupling, realnvp
from afflow.image import Conv1x1, Reshape, Split, Squeeze, multiscale
from afflow.inversion import Incremental, Jacobi, Sequential, Solver
from afflow.linear import LU, Householder, Rotation, Triangular
from afflow.names import saveable
from afflow.neural_flows import bpf, circular_nsf, gaussianization_flow, glow, naf, sospf, umnn
from afflow.permutations import Permutation, Reverse
from afflow.planar import Planar
from afflow.prefix import prefix_log_prob, sample_rest
from afflow.radial import Radial
from afflow.saving import load, save
from afflow.sylvester import Sylvester
from afflow.training import (
    Checkpoint,
    CSVLogger,
    Ensemble,
    Epoch,
    History,
    NonFiniteLossError,
    ScalarLogger,
    Stream,
    fit,
    fit_ensemble,
    maximum_likelihood,
    train,
)
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
from afflow.walk import walk

__version__ = "0.1.0"

__all__ = [
    "LU",
    "MADE",
    "MLP",
    "UMNN",
    "ActNorm",
    "Additive",
    "Affine",
    "BatchNorm",
    "BernsteinPolynomial",
    "Bijector",
    "CSVLogger",
    "Chain",
    "Checkpoint",
    "CircularShift",
    "CircularSpline",
    "ClassConditional",
    "Conditioner",
    "Constant",
    "Continuous",
    "Conv1x1",
    "ConvNet",
    "Coupling",
    "DiagonalNormal",
    "Distribution",
    "Elementwise",
    "Ensemble",
    "Epoch",
    "ExactTrace",
    "Flow",
    "GaussianCDF",
    "Graphical",
    "History",
    "Householder",
    "Hutchinson",
    "Incremental",
    "Interval",
    "Inverse",
    "Jacobi",
    "Laplace",
    "LocationScale",
    "Logistic",
    "LogisticCDF",
    "Logit",
    "MLPField",
    "MaskedAutoregressive",
    "Mixture",
    "MixtureCDF",
    "MultivariateNormal",
    "NonFiniteLossError",
    "Normal",
    "Ordered",
    "PerDimension",
    "Periodic",
    "Permutation",
    "Planar",
    "Positive",
    "Radial",
    "RationalQuadraticSpline",
    "Repeat",
    "Reshape",
    "Reverse",
    "Rotation",
    "ScalarLogger",
    "Sequential",
    "Sigmoidal",
    "Simplex",
    "Solver",
    "Split",
    "Squeeze",
    "Standardize",
    "Stream",
    "StudentT",
    "SumOfSquares",
    "Sylvester",
    "Trace",
    "Triangular",
    "Uniform",
    "VariationalDequantization",
    "VectorField",
    "bits_per_dim",
    "bpf",
    "check_bijector",
    "circular_nsf",
    "cnf",
    "coupling_flow",
    "dequantize",
    "fit",
    "fit_ensemble",
    "gaussianization_flow",
    "glow",
    "iaf",
    "initialize_actnorm",
    "load",
    "made",
    "maf",
    "maximum_likelihood",
    "multiscale",
    "naf",
    "nice",
    "nsf",
    "nsf_coupling",
    "prefix_log_prob",
    "quantize",
    "realnvp",
    "sample_rest",
    "save",
    "saveable",
    "sospf",
    "train",
    "umnn",
    "update_batchnorm",
    "walk",
]
