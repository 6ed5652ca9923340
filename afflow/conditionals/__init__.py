"""Scalar distributions whose parameters a conditioner computes from the earlier coordinates."""

from afflow.conditionals.bernoulli import Bernoulli
from afflow.conditionals.categorical import Categorical
from afflow.conditionals.categorical_levels import CategoricalLevels
from afflow.conditionals.channel_logistics import ChannelLogistics
from afflow.conditionals.discretized import DiscretizedLogistics
from afflow.conditionals.independent import Independent
from afflow.conditionals.mixture import MixtureOf
from afflow.core.conditional import Conditional

__all__ = [
    "Bernoulli",
    "Categorical",
    "CategoricalLevels",
    "ChannelLogistics",
    "Conditional",
    "DiscretizedLogistics",
    "Independent",
    "MixtureOf",
]
