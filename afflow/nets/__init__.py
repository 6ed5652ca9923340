"""Networks and their parts: for couplings, and the positions of attention."""

from afflow.nets.attention import Encoder
from afflow.nets.convnet import ConvNet
from afflow.nets.mlp import MLP
from afflow.nets.positions import Absolute, Positions, Relative, Rotary

__all__ = ["MLP", "Absolute", "ConvNet", "Encoder", "Positions", "Relative", "Rotary"]
