"""The abstract classes: bijector, conditioner, conditional and distribution."""

from afflow._tools.constants import Constant
from afflow.core.bijector import Bijector
from afflow.core.conditional import Conditional
from afflow.core.conditioner import Conditioner
from afflow.core.distribution import Distribution
from afflow.core.order_agnostic import Draw, OrderAgnostic

__all__ = [
    "Bijector",
    "Conditional",
    "Conditioner",
    "Constant",
    "Distribution",
    "Draw",
    "OrderAgnostic",
]
