"""The published recipes: each is a function that builds a model."""

from afflow.zoo.autoregressive_flows import circular_nsf, iaf, made, maf, nsf
from afflow.zoo.continuous_flows import cnf
from afflow.zoo.coupling_flows import coupling_flow, glow, nice, nsf_coupling, realnvp
from afflow.zoo.density_models import (
    choose_order,
    deep_nade,
    eonade,
    fvsbn,
    independent_mlps,
    made_ensemble,
    made_model,
    nade,
    rnade,
)
from afflow.zoo.gaussianization import gaussianization_flow
from afflow.zoo.guidance import cool, guide
from afflow.zoo.image_models import (
    diagonal_lstm,
    gated_pixelcnn,
    multiscale,
    pixelcnn,
    pixelcnn_pp,
    row_lstm,
    subscale,
)
from afflow.zoo.latent_models import discrete_vae, vae
from afflow.zoo.monotone_flows import bnaf, bpf, naf, sospf, triangular_spline_flow, umnn
from afflow.zoo.transformer_flows import tarflow, tnaf

__all__ = [
    "bnaf",
    "bpf",
    "choose_order",
    "circular_nsf",
    "cnf",
    "cool",
    "coupling_flow",
    "deep_nade",
    "diagonal_lstm",
    "discrete_vae",
    "eonade",
    "fvsbn",
    "gated_pixelcnn",
    "gaussianization_flow",
    "glow",
    "guide",
    "iaf",
    "independent_mlps",
    "made",
    "made_ensemble",
    "made_model",
    "maf",
    "multiscale",
    "nade",
    "naf",
    "nice",
    "nsf",
    "nsf_coupling",
    "pixelcnn",
    "pixelcnn_pp",
    "realnvp",
    "rnade",
    "row_lstm",
    "sospf",
    "subscale",
    "tarflow",
    "tnaf",
    "triangular_spline_flow",
    "umnn",
    "vae",
]
