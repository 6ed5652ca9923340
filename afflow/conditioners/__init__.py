"""Networks that map `x[:t]` and a context to the parameters of token `t`."""

from afflow.conditioners.any_order.deep_nade import DeepNADE
from afflow.conditioners.any_order.made import AgnosticMADE
from afflow.conditioners.fixed_sum import FixedSum
from afflow.conditioners.graphical import Graphical
from afflow.conditioners.guided import Guided
from afflow.conditioners.independent import IndependentMLPs
from afflow.conditioners.made import MADE, Wiring
from afflow.conditioners.markov import ConvolutionalMarkov, HiddenMarkov, Markov
from afflow.conditioners.nade import NADE
from afflow.conditioners.periodic import Periodic
from afflow.conditioners.pixels.diagonal_lstm import DiagonalLSTM
from afflow.conditioners.pixels.gated import GatedPixelCNN
from afflow.conditioners.pixels.multiscale import Multiscale
from afflow.conditioners.pixels.pixelcnn import PixelCNN
from afflow.conditioners.pixels.pixelcnn_pp import PixelCNNPP
from afflow.conditioners.pixels.row_lstm import RowLSTM
from afflow.conditioners.pixels.subscale import Subscale
from afflow.conditioners.recurrent import Recurrent
from afflow.conditioners.tcn import TCN
from afflow.conditioners.transformer import Transformer
from afflow.conditioners.wavenet import WaveNet
from afflow.core.conditioner import Conditioner
from afflow.core.order_agnostic import Draw, OrderAgnostic

__all__ = [
    "MADE",
    "NADE",
    "TCN",
    "AgnosticMADE",
    "Conditioner",
    "ConvolutionalMarkov",
    "DeepNADE",
    "DiagonalLSTM",
    "Draw",
    "FixedSum",
    "GatedPixelCNN",
    "Graphical",
    "Guided",
    "HiddenMarkov",
    "IndependentMLPs",
    "Markov",
    "Multiscale",
    "OrderAgnostic",
    "Periodic",
    "PixelCNN",
    "PixelCNNPP",
    "Recurrent",
    "RowLSTM",
    "Subscale",
    "Transformer",
    "WaveNet",
    "Wiring",
]
