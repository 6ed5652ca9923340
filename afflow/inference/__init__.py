"""Uses of a density: importance sampling, variational inference, distillation, purification."""

from afflow.inference.conditional_divergences import conditional_kl, gaussian_kl
from afflow.inference.distillation import distill, kl_per_token
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
from afflow.inference.purification import find_p_value, purify
from afflow.inference.spectra import add_power_loss, find_spectrum
from afflow.inference.teachers import ModelDensity
from afflow.inference.variational import fit_to_density

__all__ = [
    "Divergence",
    "Estimate",
    "ModelDensity",
    "Moments",
    "add_power_loss",
    "conditional_kl",
    "distill",
    "doubly_reparameterized",
    "effective_sample_size",
    "elbo",
    "find_p_value",
    "find_spectrum",
    "fit_to_density",
    "forward_kl",
    "gaussian_kl",
    "importance_weighted",
    "importance_weights",
    "kl_per_token",
    "log_evidence",
    "moments",
    "pareto_k",
    "pareto_smoothed",
    "purify",
    "reverse_kl",
    "sticking_the_landing",
]
