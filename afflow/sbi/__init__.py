"""Simulation-based inference: posteriors from simulations, and diagnostics of posteriors."""

from afflow.sbi.two_samples import c2st

__all__ = ["c2st"]
