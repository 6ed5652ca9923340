"""Factory: Gaussianization flows."""

from typing import Unpack

import jax
from flax import nnx

from afflow._tools.arguments import draw_key
from afflow.bijectors.compose import Chain
from afflow.bijectors.coupling import Coupling
from afflow.bijectors.linear import Householder
from afflow.core.univariate import count_params
from afflow.models.flow import Flow
from afflow.nets.mlp import MLP
from afflow.univariates.mixture_cdf import GaussianCDF, MixtureCDF
from afflow.zoo.stacking import Outside, stack_layers


def gaussianization_flow(
    dim: int,
    *,
    num_layers: int = 6,
    num_components: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    context_dim: int = 0,
    rngs: nnx.Rngs,
    **outside: Unpack[Outside],
) -> Flow:
    """Return a Gaussianization flow: mixture CDFs of each coordinate, and rotations.

    The flow starts close to random rotations. It needs a learning rate of 1e-2 to 1e-1. Sampling
    searches a root for each coordinate. A context sets the mixtures through a network with
    `hidden` layers; without a context there is no network. The other arguments are described at
    `maf`.

    Meng et al. 2020, arXiv:2003.01941.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> flow = afflow.zoo.gaussianization_flow(2, num_layers=2, rngs=nnx.Rngs(0))
        >>> flow.sample(jax.random.key(0), 3).shape
        (3, 2)
    """

    def layer(rngs):
        curve, widths = MixtureCDF(num_components, GaussianCDF()), hidden if context_dim else ()
        sizes = 0, dim, count_params(curve), widths
        network = MLP(*sizes, context_dim=context_dim, rngs=rngs)
        rotation = Householder(dim, dim, rngs=rngs)
        rotation.v = nnx.Param(jax.random.normal(draw_key(rngs), rotation.v.shape))
        return Chain([Coupling([False] * dim, network, curve), rotation])

    return stack_layers(dim, layer, num_layers, rngs, **outside)
