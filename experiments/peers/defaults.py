"""Flows that are built and trained as in the first lines of each library's README.

Each function fits a flow to standardised training rows, and returns the flow's log-density, a
function of other rows.
Some libraries document a training loop without a stopping rule. Their loops get the rule of afflow:
a tenth of the rows is held out, and the parameters with the best loss on these rows are kept.
"""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np

LogProb = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[str, np.ndarray, int], LogProb]
BATCH, EPOCHS, PATIENCE = 64, 100, 20


def afflow_fit(make: str, train: np.ndarray, seed: int) -> LogProb:
    """Fit `afflow.maf` or `afflow.nsf` by `afflow.fit`, all with default settings."""
    from flax import nnx

    import afflow

    flow = getattr(afflow, make)(train.shape[1], data=train, rngs=nnx.Rngs(seed))
    flow, _ = afflow.fit(flow, train, key=jax.random.key(seed), progress=False)
    return partial(in_parts, flow.log_prob)


def flowjax_fit(make: str, train: np.ndarray, seed: int) -> LogProb:
    """Fit `masked_autoregressive_flow` by `fit_to_data`, both with default settings.

    For `nsf` the transformer is a spline with 8 knots.
    """
    import equinox as eqx
    import jax.numpy as jnp
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import masked_autoregressive_flow
    from flowjax.train import fit_to_data

    flow_key, train_key = jax.random.split(jax.random.key(seed))
    spline = {"transformer": RationalQuadraticSpline(knots=8, interval=4)}
    flow = masked_autoregressive_flow(
        flow_key, base_dist=Normal(jnp.zeros(train.shape[1])), **(spline if make == "nsf" else {})
    )
    flow, _ = fit_to_data(train_key, flow, train, show_progress=False)
    return partial(in_parts, eqx.filter_jit(flow.log_prob))


def zuko_fit(make: str, train: np.ndarray, seed: int) -> LogProb:
    """Fit `zuko.flows.MAF` with default settings, or `NSF` with the sizes of its README."""
    import torch
    import zuko

    torch.manual_seed(seed)
    dim = train.shape[1]
    if make == "maf":
        flow = zuko.flows.MAF(dim)
    else:
        flow = zuko.flows.NSF(dim, transforms=3, hidden_features=[128] * 3)
    return _torch_fit(flow, lambda x: flow().log_prob(x), train, seed)


def nflows_fit(make: str, train: np.ndarray, seed: int) -> LogProb:
    """Fit five layers of nflows, 64 units wide, each followed by a random permutation."""
    import torch
    from nflows import distributions, flows, transforms

    torch.manual_seed(seed)
    dim = train.shape[1]

    def layer():
        if make == "maf":
            return transforms.MaskedAffineAutoregressiveTransform(dim, hidden_features=64)
        return transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            dim, hidden_features=64, num_bins=8, tails="linear", tail_bound=4.0
        )

    parts = [part for _ in range(5) for part in (layer(), transforms.RandomPermutation(dim))]
    transform = transforms.CompositeTransform(parts)
    flow = flows.Flow(transform, distributions.StandardNormal([dim]))
    return _torch_fit(flow, flow.log_prob, train, seed)


def in_parts(log_prob: Callable, x: np.ndarray, size: int = 4096) -> np.ndarray:
    """Return the log-densities of all rows, computed in parts."""
    parts = [log_prob(x[start : start + size]) for start in range(0, len(x), size)]
    return np.concatenate([np.asarray(part, float) for part in parts])


def _torch_fit(flow, log_prob, train, seed) -> LogProb:
    """Train with Adam at 1e-3, as both READMEs do, and keep the best on held-out rows."""
    import torch

    rows = torch.as_tensor(np.random.default_rng(seed).permutation(train))
    held_out, rows = rows[: len(rows) // 10], rows[len(rows) // 10 :]
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-3)
    best, best_loss, waited = flow.state_dict(), np.inf, 0
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(rows)).split(max(BATCH, len(rows) // 400)):
            loss = -log_prob(rows[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            value = -torch.cat([log_prob(part) for part in held_out.split(4096)]).mean().item()
        waited += 1
        if value < best_loss:
            best = {name: a.clone() for name, a in flow.state_dict().items()}
            best_loss, waited = value, 0
        if waited == PATIENCE or not np.isfinite(value):
            break
    flow.load_state_dict(best)
    return partial(in_parts, torch.no_grad()(lambda x: log_prob(torch.as_tensor(x))))


MODULES = {
    "afflow": ["afflow"],
    "flowjax": ["equinox", "flowjax.flows", "flowjax.train"],
    "zuko": ["torch", "zuko"],
    "nflows": ["torch", "nflows.distributions", "nflows.flows", "nflows.transforms"],
}
"""The modules of each library. Importing them first keeps the imports out of a training time."""
LIBRARIES: dict[str, Fit] = {
    "afflow": afflow_fit,
    "flowjax": flowjax_fit,
    "zuko": zuko_fit,
    "nflows": nflows_fit,
}
