"""The abstract classes: bijector, univariate, conditioner, conditional and distribution."""

from afflow._tools.constants import Constant
from afflow.core.bijector import Bijector
from afflow.core.conditional import Conditional
from afflow.core.conditioner import Conditioner
from afflow.core.distribution import Distribution
from afflow.core.order_agnostic import Draw, OrderAgnostic
from afflow.core.univariate import Univariate

__all__ = [
    "Bijector",
    "Conditional",
    "Conditioner",
    "Constant",
    "Distribution",
    "Draw",
    "OrderAgnostic",
    "Univariate",
]
