"""The same masked autoregressive flow in several libraries, each in a separate process."""

from typing import NamedTuple

EPOCH = 10
"""Minibatches in the timed epoch of training; one more is held out for validation."""


class Sizes(NamedTuple):
    """Sizes of one flow, and of the batch for scoring, sampling and training."""

    dim: int
    num_layers: int
    width: int
    batch: int
    seed: int


class Library(NamedTuple):
    """The module that builds a library's flow, the packages to report, and the architecture."""

    module: str
    packages: tuple[str, ...]
    architecture: str


_FLOWJAX = (
    "masked_autoregressive_flow(nn_depth=2) and its default affine transformer: random "
    "permutations in place of reversals (for D=2, a flip); scale softplus + 0.01, unbounded."
)
_NUMPYRO = (
    "AutoregressiveNN, InverseAutoregressiveTransform, reversing PermuteTransform, read from "
    "data to noise: log-scale clipped to [-5, 3]; hidden layers at least D wide."
)
_ZUKO = "MAF(): log-scale smoothly bounded by 6.9"
_NFLOWS = (
    "MaskedAffineAutoregressiveTransform(num_blocks=1, use_residual_blocks=False), which has "
    "two hidden layers, and ReversePermutation: scale softplus + 0.001, unbounded"
)
_EAGER = "; eager, fused Adam."
_COMPILE = "; torch.compile of the log-density (sampling is not compiled, nor timed), fused Adam."

LIBRARIES = {
    "afflow": Library(
        "peers.jax_flows",
        ("afflow", "jax", "flax"),
        "maf(): log-scale smoothly bounded by 7; weights moved off the identity.",
    ),
    "flowjax": Library("peers.jax_flows", ("flowjax", "jax", "equinox"), _FLOWJAX),
    "numpyro": Library("peers.jax_flows", ("numpyro", "jax"), _NUMPYRO),
    "zuko": Library("peers.torch_flows", ("zuko", "torch"), _ZUKO + _EAGER),
    "nflows": Library("peers.torch_flows", ("nflows", "torch"), _NFLOWS + _EAGER),
    "zuko-compile": Library("peers.torch_flows", ("zuko", "torch"), _ZUKO + _COMPILE),
    "nflows-compile": Library("peers.torch_flows", ("nflows", "torch"), _NFLOWS + _COMPILE),
}
