"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow._tools.constants import Constant
from afflow._tools.names import saveable
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
    Simplex,
    Tanh,
)
from afflow.bijectors.elementwise import Elementwise, LeakyReLU, Standardize
from afflow.bijectors.embedding import Embedded, ZScores
from afflow.bijectors.image import Conv1x1, Reshape, Split, Squeeze, multiscale
from afflow.bijectors.linear import LU, Householder, Rotation, Triangular
from afflow.bijectors.permutations import Permutation, Reverse, Shuffle
from afflow.bijectors.planar import Planar
from afflow.bijectors.radial import Radial
from afflow.bijectors.solvers import FullPasses, Incremental, Jacobi, Solver
from afflow.bijectors.sylvester import Sylvester
from afflow.bijectors.walking import walk
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
    FixedSum,
    Graphical,
    IndependentMLPs,
    OrderAgnostic,
    Periodic,
)
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.distributions.location_scale import DiagonalNormal, LocationScale, MultivariateNormal
from afflow.distributions.mixtures import ClassConditional, Mixture, Product
from afflow.distributions.standard import Laplace, Logistic, Normal, StudentT, Uniform, VonMises
from afflow.inference.divergences import (
    Divergence,
    doubly_reparameterized,
    forward_kl,
    importance_weighted,
    reverse_kl,
    sticking_the_landing,
)
from afflow.inference.importance import (
    Estimate,
    effective_sample_size,
    elbo,
    importance_weights,
    log_evidence,
)
from afflow.inference.moment_estimates import Moments, moments
from afflow.inference.pareto import pareto_k, pareto_smoothed
from afflow.inference.variational import fit_to_density
from afflow.models.any_order import OrderAgnosticModel
from afflow.models.autoregressive import AutoregressiveModel
from afflow.models.columns import Above, Between, Categories, Columns, Real, Whole
from afflow.models.dequantization import (
    Dequantized,
    VariationalDequantization,
    bits_per_dim,
    dequantize,
    quantize,
)
from afflow.models.flow import Flow
from afflow.models.prefix import prefix_log_prob, sample_rest
from afflow.saving.archive import load, save
from afflow.testing import check_bijector
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
    observed_likelihood,
    paths_of,
    train,
)
from afflow.univariates import (
    UMNN,
    Additive,
    Affine,
    BernsteinPolynomial,
    CircularSpline,
    CubicSpline,
    GaussianCDF,
    HeavyTails,
    LaplaceCDF,
    LinearSpline,
    LogisticCDF,
    MixtureCDF,
    PerDimension,
    QuadraticSpline,
    RationalQuadraticSpline,
    Sigmoidal,
    SumOfSquares,
)
from afflow.zoo.autoregressive_flows import circular_nsf, iaf, made, maf, nsf
from afflow.zoo.continuous_flows import cnf
from afflow.zoo.coupling_flows import coupling_flow, glow, nice, nsf_coupling, realnvp
from afflow.zoo.density_models import (
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
from afflow.zoo.gaussianization import gaussianization_flow
from afflow.zoo.monotone_flows import bnaf, bpf, naf, sospf, triangular_spline_flow, umnn

__version__ = "0.1.0"

__all__ = [
    "BNAF",
    "LU",
    "MADE",
    "MLP",
    "NADE",
    "UMNN",
    "Above",
    "ActNorm",
    "Additive",
    "Affine",
    "AgnosticMADE",
    "AutoregressiveModel",
    "BatchNorm",
    "Bernoulli",
    "BernsteinPolynomial",
    "Between",
    "Bijector",
    "Blockwise",
    "CSVLogger",
    "Categorical",
    "Categories",
    "Chain",
    "Checkpoint",
    "CircularShift",
    "CircularSpline",
    "ClassConditional",
    "Columns",
    "Conditional",
    "Conditioner",
    "Constant",
    "Continuous",
    "Conv1x1",
    "ConvNet",
    "Coupling",
    "CubicSpline",
    "DeepNADE",
    "Dequantized",
    "DiagonalNormal",
    "DiscretizedLogistics",
    "Distribution",
    "Divergence",
    "Draw",
    "Elementwise",
    "Embedded",
    "Ensemble",
    "Epoch",
    "Estimate",
    "ExactTrace",
    "Exp",
    "FixedSum",
    "Flow",
    "GaussianCDF",
    "Graphical",
    "HeavyTails",
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
    "LeakyReLU",
    "LinearSpline",
    "LocationScale",
    "Logistic",
    "LogisticCDF",
    "Logit",
    "MLPField",
    "MaskedAutoregressive",
    "Mixture",
    "MixtureCDF",
    "MixtureOf",
    "Moments",
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
    "Power",
    "Product",
    "QuadraticSpline",
    "Radial",
    "RationalQuadraticSpline",
    "Real",
    "Repeat",
    "Reshape",
    "Reverse",
    "Rotation",
    "ScalarLogger",
    "FullPasses",
    "Shuffle",
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
    "Tanh",
    "Trace",
    "Triangular",
    "Uniform",
    "VariationalDequantization",
    "VectorField",
    "VonMises",
    "Whole",
    "ZScores",
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
    "doubly_reparameterized",
    "effective_sample_size",
    "elbo",
    "eonade",
    "fit",
    "fit_ensemble",
    "fit_to_density",
    "forward_kl",
    "fvsbn",
    "gaussianization_flow",
    "glow",
    "iaf",
    "importance_weighted",
    "importance_weights",
    "independent_mlps",
    "initialize_actnorm",
    "load",
    "log_evidence",
    "made",
    "made_ensemble",
    "made_model",
    "maf",
    "maximum_likelihood",
    "moments",
    "multiscale",
    "nade",
    "naf",
    "nice",
    "nsf",
    "nsf_coupling",
    "observed_likelihood",
    "pareto_k",
    "pareto_smoothed",
    "paths_of",
    "prefix_log_prob",
    "quantize",
    "realnvp",
    "reverse_kl",
    "rnade",
    "sample_rest",
    "save",
    "saveable",
    "sospf",
    "sticking_the_landing",
    "train",
    "triangular_spline_flow",
    "umnn",
    "update_batchnorm",
    "walk",
]

_RENAMED = {"Sequential": "FullPasses"}


def __getattr__(name: str) -> object:
    """Raise `AttributeError` with the new name of something that was renamed."""
    mend = f": it is afflow.{_RENAMED[name]} now" if name in _RENAMED else ""
    raise AttributeError(f"module 'afflow' has no attribute {name!r}{mend}")
