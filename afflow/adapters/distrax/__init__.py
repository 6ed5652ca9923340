"""Flows in distrax and TFP, and the distributions and bijectors of distrax and TFP in flows."""

from afflow.adapters.distrax.parts import DistraxBijector, DistraxDistribution, from_distrax
from afflow.adapters.distrax.tfp import BijectorInTFP, FlowInTFP, to_tfp
from afflow.adapters.distrax.wrapped import BijectorInDistrax, FlowInDistrax, to_distrax

__all__ = [
    "BijectorInDistrax",
    "BijectorInTFP",
    "DistraxBijector",
    "DistraxDistribution",
    "FlowInDistrax",
    "FlowInTFP",
    "from_distrax",
    "to_distrax",
    "to_tfp",
]
