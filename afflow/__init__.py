"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow.actnorm import ActNorm, initialize_actnorm
from afflow.autoregressive import MaskedAutoregressive
from afflow.autoregressive_model import AutoregressiveModel
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
from afflow.bnaf import BNAF
from afflow.checks import check_bijector
from afflow.compose import Chain, Repeat
from afflow.conditionals import Bernoulli, Categorical, Conditional, DiscretizedLogistics, MixtureOf
from afflow.conditioners import (
    MADE,
    MLP,
    NADE,
    AgnosticMADE,
    Conditioner,
    ConvNet,
    DeepNADE,
    Draw,
    Graphical,
    IndependentMLPs,
    OrderAgnostic,
    Periodic,
)
from afflow.continuous import Continuous, ExactTrace, Hutchinson, MLPField, Trace, VectorField, cnf
from afflow.coupling import Coupling
from afflow.density_models import (
    choose_order,
    deep_nade,
    eonade,
    fvsbn,
    independent_mlps,
    made_ensemble,
    made_model,
    nade,
    rnade,
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
from afflow.flows import coupling_flow, iaf, made, maf, nice, nsf, nsf_coupling, realnvp
from afflow.image import Conv1x1, Reshape, Split, Squeeze, multiscale
from afflow.inversion import Incremental, Jacobi, Sequential, Solver
from afflow.linear import LU, Householder, Rotation, Triangular
from afflow.neural_flows import (
    bnaf,
    bpf,
    circular_nsf,
    gaussianization_flow,
    glow,
    naf,
    sospf,
    umnn,
)
from afflow.order_agnostic import OrderAgnosticModel
from afflow.permutations import Permutation, Reverse
from afflow.planar import Planar
from afflow.prefix import prefix_log_prob, sample_rest
from afflow.radial import Radial
from afflow.sylvester import Sylvester
from afflow.training import History, NonFiniteLossError, fit
from afflow.univariate import (
    UMNN,
    Additive,
    Affine,
    BernsteinPolynomial,
    CircularSpline,
    GaussianCDF,
    LaplaceCDF,
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
    "BNAF",
    "LU",
    "MADE",
    "MLP",
    "NADE",
    "UMNN",
    "ActNorm",
    "Additive",
    "Affine",
    "AgnosticMADE",
    "AutoregressiveModel",
    "BatchNorm",
    "Bernoulli",
    "BernsteinPolynomial",
    "Bijector",
    "Categorical",
    "Chain",
    "CircularShift",
    "CircularSpline",
    "ClassConditional",
    "Conditional",
    "Conditioner",
    "Constant",
    "Continuous",
    "Conv1x1",
    "ConvNet",
    "Coupling",
    "DeepNADE",
    "DiagonalNormal",
    "DiscretizedLogistics",
    "Distribution",
    "Draw",
    "Elementwise",
    "ExactTrace",
    "Flow",
    "GaussianCDF",
    "Graphical",
    "History",
    "Householder",
    "Hutchinson",
    "Incremental",
    "IndependentMLPs",
    "Interval",
    "Inverse",
    "Jacobi",
    "Laplace",
    "LaplaceCDF",
    "LocationScale",
    "Logistic",
    "LogisticCDF",
    "Logit",
    "MLPField",
    "MaskedAutoregressive",
    "Mixture",
    "MixtureCDF",
    "MixtureOf",
    "MultivariateNormal",
    "NonFiniteLossError",
    "Normal",
    "OrderAgnostic",
    "OrderAgnosticModel",
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
    "Sequential",
    "Sigmoidal",
    "Simplex",
    "Solver",
    "Split",
    "Squeeze",
    "Standardize",
    "StudentT",
    "SumOfSquares",
    "Sylvester",
    "Trace",
    "Triangular",
    "Uniform",
    "VariationalDequantization",
    "VectorField",
    "bits_per_dim",
    "bnaf",
    "bpf",
    "check_bijector",
    "choose_order",
    "circular_nsf",
    "cnf",
    "coupling_flow",
    "deep_nade",
    "dequantize",
    "eonade",
    "fit",
    "fvsbn",
    "gaussianization_flow",
    "glow",
    "iaf",
    "independent_mlps",
    "initialize_actnorm",
    "made",
    "made_ensemble",
    "made_model",
    "maf",
    "multiscale",
    "nade",
    "naf",
    "nice",
    "nsf",
    "nsf_coupling",
    "prefix_log_prob",
    "quantize",
    "realnvp",
    "rnade",
    "sample_rest",
    "sospf",
    "umnn",
    "update_batchnorm",
    "walk",
]
