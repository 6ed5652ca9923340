"""The density of `afflow.maf` by hand: dense masked matrices in plain `jax.numpy`.

The weights come from a flow whose layers reverse the order. The densities equal the densities of
that flow up to rounding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import afflow

_BOUND = 7.0  # bound of the log-scale, as in `afflow.Affine`


class Layer(NamedTuple):
    """Weights of one MADE, or of all layers with a leading axis `L`."""

    kernels: list[jax.Array]
    """`(H, D - 1)`, `(H, H)` and `(2 D, H)`."""
    biases: list[jax.Array]


def stacked(flow: afflow.Flow) -> Layer:
    """Return the stacked weights of the layers of `afflow.maf`."""
    bijector: Any = flow.bijector
    made = bijector.bijectors[0].layers.bijectors[1].conditioner
    return Layer([a[...] for a in made.kernels], [a[...] for a in made.biases])


def unstacked(layers: Layer) -> list[Layer]:
    """Return the layers of a stack as a list."""
    count = len(layers.biases[0])
    return [Layer(*[[a[i] for a in part] for part in layers]) for i in range(count)]


def log_prob(layers: Sequence[Layer], x: jax.Array) -> jax.Array:
    """Return log-densities `(B,)` of `x` `(B, D)`, with the layers unrolled."""
    log_det = jnp.zeros(len(x))
    for layer in reversed(layers):
        x, change = _to_noise(layer, x)
        log_det += change
    return _log_normal(x) + log_det


def _to_noise(layer: Layer, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute `(x - mu) exp(-alpha)` in reverse order, and its log-determinants `(B,)`."""
    (batch, dim), width = x.shape, layer.biases[0].shape[0]
    h = x[:, :-1]
    for kernel, bias, mask in zip(*layer, _masks(dim, width), strict=True):
        out = h @ (kernel * mask).T + bias
        h = jax.nn.relu(out)
    mu, s = jnp.moveaxis(out.reshape(batch, dim, 2), -1, 0)  # (B, D)
    alpha = s / (1 + jnp.abs(s) / _BOUND)
    return ((x - mu) * jnp.exp(-alpha))[:, ::-1], -alpha.sum(1)


def _masks(dim: int, width: int) -> list[np.ndarray]:
    """Return the masks of a MADE; a unit sees inputs of its own degree or below."""
    inputs = np.arange(1, dim)
    hidden = 1 + np.sort(np.arange(width) % (dim - 1))
    outputs = np.repeat(np.arange(dim), 2)
    pairs = ((inputs, hidden), (hidden, hidden), (hidden, outputs))
    return [rows[:, None] >= cols for cols, rows in pairs]


def _log_normal(z: jax.Array) -> jax.Array:
    return jax.scipy.stats.norm.logpdf(z).sum(1)
