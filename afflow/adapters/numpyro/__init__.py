"""Flows in NumPyro, and the distributions and transforms of NumPyro in flows."""

from afflow.adapters.numpyro.distributions import FlowDistribution, to_numpyro
from afflow.adapters.numpyro.guides import AutoFlow
from afflow.adapters.numpyro.parts import NumpyroBijector, NumpyroDistribution, from_numpyro
from afflow.adapters.numpyro.priors import prior_from_numpyro
from afflow.adapters.numpyro.transforms import BijectorTransform, to_transform

__all__ = [
    "AutoFlow",
    "BijectorTransform",
    "FlowDistribution",
    "NumpyroBijector",
    "NumpyroDistribution",
    "from_numpyro",
    "prior_from_numpyro",
    "to_numpyro",
    "to_transform",
]
