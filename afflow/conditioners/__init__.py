"""Networks from `x[:t]` and a context to the parameters of coordinate `t`."""

from afflow.conditioners.conditioner import Conditioner
from afflow.conditioners.convnet import ConvNet
from afflow.conditioners.graphical import Graphical
from afflow.conditioners.made import MADE
from afflow.conditioners.mlp import MLP
from afflow.conditioners.periodic import Periodic

__all__ = ["MADE", "MLP", "Conditioner", "ConvNet", "Graphical", "Periodic"]
