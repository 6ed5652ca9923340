"""afflow: normalizing flows on JAX and Flax NNX, centred on autoregressive flows."""

from afflow import (
    adapters,
    bijectors,
    codecs,
    conditionals,
    conditioners,
    core,
    distributions,
    inference,
    models,
    nets,
    plots,
    saving,
    sbi,
    training,
    univariates,
    zoo,
)
from afflow._tools.names import RENAMED, saveable
from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Chain, Inverse, Repeat
from afflow.bijectors.coupling import Coupling
from afflow.bijectors.elementwise import Elementwise, Standardize
from afflow.bijectors.embedding import Embedded
from afflow.bijectors.linear import LU
from afflow.bijectors.permutations import Permutation, Reverse, Shuffle
from afflow.bijectors.solvers import FullPasses, Incremental, Jacobi
from afflow.conditionals import Conditional
from afflow.conditioners import MADE, Conditioner
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.distributions.standard import Normal, Uniform
from afflow.inference.importance import importance_weights
from afflow.inference.variational import fit_to_density
from afflow.models.any_order import OrderAgnosticModel
from afflow.models.autoregressive import AutoregressiveModel
from afflow.models.calibration import calibrate
from afflow.models.columns import Above, Between, Categories, Real, Whole
from afflow.models.dequantization import bits_per_dim, dequantize
from afflow.models.flow import Flow
from afflow.nets import MLP
from afflow.saving.archive import load, save
from afflow.testing import check_bijector
from afflow.training import Checkpoint, Ensemble, fit, fit_ensemble
from afflow.univariates import Affine, RationalQuadraticSpline
from afflow.zoo.autoregressive_flows import iaf, made, maf, nsf
from afflow.zoo.continuous_flows import cnf
from afflow.zoo.coupling_flows import coupling_flow, nsf_coupling, realnvp
from afflow.zoo.density_models import fvsbn, made_model, nade, rnade
from afflow.zoo.monotone_flows import bnaf, naf

__version__ = "0.1.0"

__all__ = [
    "Above",
    "Affine",
    "AutoregressiveModel",
    "Between",
    "Bijector",
    "Categories",
    "Chain",
    "Checkpoint",
    "Conditional",
    "Conditioner",
    "Coupling",
    "Distribution",
    "Elementwise",
    "Embedded",
    "Ensemble",
    "Flow",
    "FullPasses",
    "Incremental",
    "Inverse",
    "Jacobi",
    "LU",
    "MADE",
    "MLP",
    "MaskedAutoregressive",
    "Normal",
    "OrderAgnosticModel",
    "Permutation",
    "RationalQuadraticSpline",
    "Real",
    "Repeat",
    "Reverse",
    "Shuffle",
    "Standardize",
    "Uniform",
    "Whole",
    "adapters",
    "bijectors",
    "bits_per_dim",
    "bnaf",
    "calibrate",
    "check_bijector",
    "cnf",
    "codecs",
    "conditionals",
    "conditioners",
    "core",
    "coupling_flow",
    "dequantize",
    "distributions",
    "fit",
    "fit_ensemble",
    "fit_to_density",
    "fvsbn",
    "iaf",
    "importance_weights",
    "inference",
    "load",
    "made",
    "made_model",
    "maf",
    "models",
    "nade",
    "naf",
    "nets",
    "nsf",
    "nsf_coupling",
    "plots",
    "realnvp",
    "rnade",
    "save",
    "saveable",
    "saving",
    "sbi",
    "training",
    "univariates",
    "zoo",
]

_ROLES = (
    core,
    bijectors,
    univariates,
    conditioners,
    nets,
    conditionals,
    distributions,
    models,
    zoo,
    inference,
    training,
    saving,
    sbi,
    codecs,
    adapters,
    plots,
)


def __getattr__(name: str) -> object:
    """Raise `AttributeError` that says which subpackage has `name`, or its new name."""
    if name in RENAMED:
        mend = f": it is afflow.{RENAMED[name]} now"
    else:
        homes = [role.__name__ for role in _ROLES if name in role.__all__]
        mend = f": it is {homes[0]}.{name}" if homes else ""
    raise AttributeError(f"module 'afflow' has no attribute {name!r}{mend}")
