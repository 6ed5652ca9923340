"""The objects that users call: flows and density models."""

from afflow.models.any_order import OrderAgnosticModel
from afflow.models.autoregressive import AutoregressiveModel
from afflow.models.calibration import calibrate
from afflow.models.columns import Above, Between, Categories, Columns, Real, Whole
from afflow.models.depth_upscaled import DepthUpscaled
from afflow.models.dequantization import (
    Dequantized,
    VariationalDequantization,
    bits_per_dim,
    dequantize,
    quantize,
)
from afflow.models.discrete_vae import DiscreteVAE
from afflow.models.flow import Flow
from afflow.models.noisy_flow import NoisyFlow
from afflow.models.prefix import prefix_log_prob, sample_rest
from afflow.models.reshaped import Reshaped
from afflow.models.token_model import TokenModel
from afflow.models.vae import VAE

__all__ = [
    "Above",
    "AutoregressiveModel",
    "Between",
    "Categories",
    "Columns",
    "DepthUpscaled",
    "Dequantized",
    "DiscreteVAE",
    "Flow",
    "NoisyFlow",
    "OrderAgnosticModel",
    "Real",
    "Reshaped",
    "TokenModel",
    "VAE",
    "VariationalDequantization",
    "Whole",
    "bits_per_dim",
    "calibrate",
    "dequantize",
    "prefix_log_prob",
    "quantize",
    "sample_rest",
]
