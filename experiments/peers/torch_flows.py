"""The flows of the PyTorch libraries, eager as they document it or under `torch.compile`.

Under `torch.compile` the density is one function. Sampling is left out, because its loop over D
would be unrolled. Adam is the fused version, several times faster on a CPU than PyTorch's default.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from peers import Sizes


class Flow(NamedTuple):
    """A flow as a module and its functions."""

    module: torch.nn.Module
    log_prob: Callable[[torch.Tensor], torch.Tensor]
    sample: Callable[[int], torch.Tensor]


def zuko_maf(sizes: Sizes) -> Flow:
    """Build `zuko.flows.MAF`."""
    import zuko

    hidden = (sizes.width, sizes.width)
    flow = zuko.flows.MAF(sizes.dim, transforms=sizes.num_layers, hidden_features=hidden)
    return Flow(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def nflows_maf(sizes: Sizes) -> Flow:
    """Build a flow of `nflows` transforms. The first layer and one block give two hidden layers."""
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow as Transformed
    from nflows.transforms import (
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        ReversePermutation,
    )

    layers = []
    for _ in range(sizes.num_layers):
        layers.append(ReversePermutation(sizes.dim))
        layers.append(
            MaskedAffineAutoregressiveTransform(
                sizes.dim, sizes.width, num_blocks=1, use_residual_blocks=False
            )
        )
    flow = Transformed(CompositeTransform(layers), StandardNormal([sizes.dim]))
    return Flow(flow, flow.log_prob, flow.sample)


BUILD = {"zuko": zuko_maf, "nflows": nflows_maf}


def build(library: str, sizes: Sizes, x: np.ndarray) -> dict[str, Callable]:
    """Return the functions to time, and `log_prob` and `num_params` for checks."""
    torch.manual_seed(sizes.seed)
    name, _, compiled = library.partition("-")
    flow, data = BUILD[name](sizes), torch.from_numpy(x)
    optimizer = torch.optim.Adam(flow.module.parameters(), lr=1e-3, fused=True)
    log_prob = flow.log_prob
    if compiled:
        torch.compiler.reset()  # else the second dimension would be compiled for any size
        log_prob = torch.compile(log_prob, dynamic=False)

    def train():
        optimizer.zero_grad()
        loss = -log_prob(data).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    no_grad = torch.no_grad()
    calls = {
        "score": no_grad(lambda: log_prob(data)),
        "train": train,
        "log_prob": no_grad(lambda x: flow.log_prob(torch.as_tensor(x))),
        "num_params": lambda: sum(p.numel() for p in flow.module.parameters()),
    }
    return calls if compiled else calls | {"sample": no_grad(lambda: flow.sample(sizes.batch))}
