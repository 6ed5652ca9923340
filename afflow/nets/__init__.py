"""Networks without masks, for couplings."""

from afflow.nets.convnet import ConvNet
from afflow.nets.mlp import MLP

__all__ = ["ConvNet", "MLP"]
