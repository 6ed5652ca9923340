"""Distributions of one event, for the bases of flows."""

from afflow.distributions.location_scale import DiagonalNormal, LocationScale, MultivariateNormal
from afflow.distributions.mixtures import ClassConditional, Mixture, Product
from afflow.distributions.standard import Laplace, Logistic, Normal, StudentT, Uniform, VonMises

__all__ = [
    "ClassConditional",
    "DiagonalNormal",
    "Laplace",
    "LocationScale",
    "Logistic",
    "Mixture",
    "MultivariateNormal",
    "Normal",
    "Product",
    "StudentT",
    "Uniform",
    "VonMises",
]
