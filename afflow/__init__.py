"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow.actnorm import ActNorm, initialize_actnorm
from afflow.autoregressive import MaskedAutoregressive
from afflow.batchnorm import BatchNorm, update_batchnorm
from afflow.bijector import Bijector, Inverse
from afflow.checks import check_bijector
from afflow.compose import Chain, Repeat
from afflow.conditioners import MADE, Conditioner
from afflow.distributions import Distribution, Flow, Normal, Uniform
from afflow.elementwise import Constant, Elementwise, Standardize
from afflow.flows import iaf, made, maf
from afflow.image import Conv1x1, Reshape, Split, Squeeze, multiscale
from afflow.inversion import Incremental, Jacobi, Sequential, Solver
from afflow.linear import LU, Householder, Rotation, Triangular
from afflow.permutations import Permutation, Reverse
from afflow.planar import Planar
from afflow.radial import Radial
from afflow.sylvester import Sylvester
from afflow.training import History, NonFiniteLossError, fit
from afflow.univariate import Affine
from afflow.walk import walk

__version__ = "0.1.0"

__all__ = [
    "ActNorm",
    "Affine",
    "BatchNorm",
    "Bijector",
    "Chain",
    "Conditioner",
    "Constant",
    "Conv1x1",
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
    "Planar",
    "Radial",
    "Repeat",
    "Reshape",
    "Reverse",
    "Rotation",
    "Sequential",
    "Solver",
    "Split",
    "Squeeze",
    "Standardize",
    "Sylvester",
    "Triangular",
    "Uniform",
    "check_bijector",
    "fit",
    "iaf",
    "initialize_actnorm",
    "made",
    "maf",
    "multiscale",
    "update_batchnorm",
    "walk",
]
