"""Simulation-based inference: posteriors from simulations, and diagnostics of posteriors."""

from afflow.sbi.coverage import Coverage, estimate_coverage
from afflow.sbi.likelihood_estimation import nle
from afflow.sbi.posterior_estimation import npe
from afflow.sbi.posteriors import Posterior
from afflow.sbi.predictive import PosteriorPredictive, predict
from afflow.sbi.priors import Pulled, box, constrain, gaussian, independent, lognormal
from afflow.sbi.ranks import Ranks, compute_ranks
from afflow.sbi.ratio_estimation import Contrast, RatioEstimator, nre
from afflow.sbi.simulations import Simulations, simulate, simulate_at
from afflow.sbi.tarp import estimate_tarp_coverage
from afflow.sbi.truncation import tsnpe
from afflow.sbi.two_samples import c2st
from afflow.sbi.uniformity import (
    EcdfDifference,
    RankHistogram,
    Uniformity,
    assess_uniformity,
    bin_ranks,
    compare_ecdf,
)

__all__ = [
    "Contrast",
    "Coverage",
    "EcdfDifference",
    "Posterior",
    "PosteriorPredictive",
    "Pulled",
    "RankHistogram",
    "Ranks",
    "RatioEstimator",
    "Simulations",
    "Uniformity",
    "assess_uniformity",
    "bin_ranks",
    "box",
    "c2st",
    "compare_ecdf",
    "compute_ranks",
    "constrain",
    "estimate_coverage",
    "estimate_tarp_coverage",
    "gaussian",
    "independent",
    "lognormal",
    "nle",
    "npe",
    "nre",
    "predict",
    "simulate",
    "simulate_at",
    "tsnpe",
]
