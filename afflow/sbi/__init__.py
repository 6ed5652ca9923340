"""Simulation-based inference: posteriors from simulations, and diagnostics of posteriors."""

from afflow.sbi.likelihood_estimation import nle
from afflow.sbi.posterior_estimation import npe
from afflow.sbi.posteriors import Posterior
from afflow.sbi.priors import Pulled, box, constrain, gaussian, independent, lognormal
from afflow.sbi.ratio_estimation import Contrast, RatioEstimator, nre
from afflow.sbi.simulations import Simulations, simulate, simulate_at
from afflow.sbi.truncation import tsnpe
from afflow.sbi.two_samples import c2st

__all__ = [
    "Contrast",
    "Posterior",
    "Pulled",
    "RatioEstimator",
    "Simulations",
    "box",
    "c2st",
    "constrain",
    "gaussian",
    "independent",
    "lognormal",
    "nle",
    "npe",
    "nre",
    "simulate",
    "simulate_at",
    "tsnpe",
]
