"""Networks and their parts: for couplings and images, and the positions of attention."""

from afflow.nets.attention import Encoder
from afflow.nets.convnet import ConvNet
from afflow.nets.mlp import MLP
from afflow.nets.positions import Absolute, PerPlace, Positions, Relative, Rotary
from afflow.nets.resampling import Downsampler, Upsampler

__all__ = [
    "MLP",
    "Absolute",
    "ConvNet",
    "Downsampler",
    "Encoder",
    "PerPlace",
    "Positions",
    "Relative",
    "Rotary",
    "Upsampler",
]
