"""Uses of a density: importance sampling, divergences, variational inference, purification."""

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
from afflow.inference.variational import fit_to_density

__all__ = [
    "Divergence",
    "Estimate",
    "Moments",
    "doubly_reparameterized",
    "effective_sample_size",
    "elbo",
    "find_p_value",
    "fit_to_density",
    "forward_kl",
    "importance_weighted",
    "importance_weights",
    "log_evidence",
    "moments",
    "pareto_k",
    "pareto_smoothed",
    "purify",
    "reverse_kl",
    "sticking_the_landing",
]
