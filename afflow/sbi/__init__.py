"""Simulation-based inference: posteriors from simulations, and diagnostics of posteriors."""

from afflow.sbi.coverage import Coverage, estimate_coverage
from afflow.sbi.predictive import PosteriorPredictive, predict
from afflow.sbi.ranks import Posterior, Ranks, compute_ranks
from afflow.sbi.tarp import estimate_tarp_coverage
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
    "Coverage",
    "EcdfDifference",
    "Posterior",
    "PosteriorPredictive",
    "RankHistogram",
    "Ranks",
    "Uniformity",
    "assess_uniformity",
    "bin_ranks",
    "c2st",
    "compare_ecdf",
    "compute_ranks",
    "estimate_coverage",
    "estimate_tarp_coverage",
    "predict",
]
