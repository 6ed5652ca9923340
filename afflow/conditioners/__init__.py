"""Networks from `x[:t]` and a context to the parameters of coordinate `t`."""

from afflow.conditioners.agnostic import Draw, OrderAgnostic
from afflow.conditioners.agnostic_made import AgnosticMADE
from afflow.conditioners.conditioner import Conditioner
from afflow.conditioners.convnet import ConvNet
from afflow.conditioners.deep_nade import DeepNADE
from afflow.conditioners.fixed_sum import FixedSum
from afflow.conditioners.graphical import Graphical
from afflow.conditioners.independent import IndependentMLPs
from afflow.conditioners.made import MADE
from afflow.conditioners.mlp import MLP
from afflow.conditioners.nade import NADE
from afflow.conditioners.periodic import Periodic

__all__ = [
    "MADE",
    "MLP",
    "NADE",
    "AgnosticMADE",
    "Conditioner",
    "ConvNet",
    "DeepNADE",
    "Draw",
    "FixedSum",
    "Graphical",
    "IndependentMLPs",
    "OrderAgnostic",
    "Periodic",
]
