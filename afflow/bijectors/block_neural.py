"""The block neural autoregressive flow: one network that is monotone in each coordinate."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.nn import log_sigmoid, softplus
from jax.tree_util import Partial

from afflow._tools.arguments import check_number, draw_key
from afflow._tools.bounds import bound_softly
from afflow._tools.numerics import total
from afflow._tools.outline import Outlined
from afflow._tools.positive import positive, positive_inverse
from afflow._tools.shapes import check_sizes
from afflow.bijectors.solvers import Incremental, Solver, solve
from afflow.core.bijector import Bijector, of_one_event
from afflow.core.conditioner import Conditioner
from afflow.univariates.monotone import solve_monotone

_REACH = 3.0  # at the start a layer is close to the identity between -3 and 3
_MAX_GATE = 7.0


class BNAF(Bijector):
    r"""A network of block triangular layers, from data to noise.

    Every layer has several units for each coordinate. The units of coordinate $t$ see
    coordinates $0, \dots, t$, with positive weights on coordinate $t$:

    $$h^l_t = \phi(u^l_t), \qquad \phi(u) = a u + (1 - a) \tanh u, \qquad
    u^l_t = W^l_{tt} h^{l-1}_t + c^l_t, \qquad
    c^l_t = \sum_{j<t} W^l_{tj} h^{l-1}_j + b^l_t, \qquad h^0 = y,$$
    $$x_t = (1 - \alpha_t)\, y_t + \alpha_t\, u^L_t, \qquad
    \frac{\partial x_t}{\partial y_t} = 1 - \alpha_t + \alpha_t\, W^L_{tt}
    \prod_{l<L} \mathrm{diag}(\phi'(u^l_t))\, W^l_{tt}.$$

    The paper has $\phi = \tanh$, the default here. The network alone is then bounded. The gate
    $\alpha_t < 1$, an option in the paper, makes the map onto the whole space, with straight tails
    of slope $1 - \alpha_t$. With a leak $a > 0$ the network keeps a slope far out, and the tails
    are learned with it. The product of slopes is computed in log space.
    Each row of $W$ is weight normalised: a vector divided by its length, times a scale. The
    scales and the entries of $W_{tt}$ are bounded as in `positive`, the logit of the gate by 7.
    At the start the map is close to the identity on $[-3, 3]$.

    `forward` finds a root for each coordinate in turn, by `solver`, with derivatives by the
    implicit function theorem.

    De Cao et al. 2019, arXiv:1904.04676.

    Args:
        dim: number of coordinates `D`.
        hidden: units per coordinate in each hidden layer.
        context_dim: length of the context vector, which every layer sees; 0 for none.
        leak: the slope $a$ of the activation far from zero, in [0, 1).
        solver: runs the serial direction.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: if `hidden` is empty, or for sizes or a leak out of range.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> layer = afflow.bijectors.BNAF(2, (8,), rngs=nnx.Rngs(0))
        >>> y = jnp.array([1.0, -2.0])
        >>> jnp.allclose(layer.forward(layer.inverse(y)), y, atol=1e-5).item()
        True
    """

    ABSENT = {"leak": 0.0}  # in archives from before there were leaks

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...] = (16, 16),
        *,
        context_dim: int = 0,
        leak: float = 0.0,
        solver: Solver = Incremental(),
        rngs: nnx.Rngs,
    ):
        options = {"context_dim": context_dim, "leak": leak}
        self.network = BlockNetwork(dim, hidden, **options, rngs=rngs)
        self.leak = self.network.leak
        self.gate = nnx.Param(jnp.zeros(dim))
        self.solver = solver
        self.event_shape = self.network.event_shape
        self.context_shape = self.network.context_shape

    @property
    def is_triangular(self) -> bool:
        return True

    @of_one_event
    def inverse_and_log_det(self, y, context=None):
        c = self.network(y, self._own(context))  # (D, P)
        x, log_slopes = jax.vmap(_Diagonal(self.leak))(y, (self._diagonal(), c))
        return x, total(log_slopes)

    @of_one_event
    def forward_and_log_det(self, x, context=None):
        inputs, context = (x, self._diagonal()), self._own(context)
        emit = Partial(_Emit(_Diagonal(self.leak)))
        y, log_slopes = solve(self.solver, self.network, emit, inputs, context)
        return y, total(log_slopes)

    def _diagonal(self):
        return self.gate[...], [blocks.diagonal for blocks in self.network.blocks(None)]

    def _own(self, context):
        return None if self.context_shape is None else context


class Blocks(NamedTuple):
    """The weights of one layer that maps `a` units per coordinate to `a'` units per coordinate."""

    below: jax.Array  # (D, a', D, a), zero unless j < t
    diagonal: jax.Array  # (D, a', a), positive
    bias: jax.Array  # (D, a')


class BlockLinear(Outlined, nnx.Module):
    """A weight-normalised block triangular linear map, with positive blocks on the diagonal."""

    def __init__(
        self, dim: int, before: int, after: int, context_dim: int, leak: float, rngs: nnx.Rngs
    ):
        kernel = jax.random.normal(draw_key(rngs), (dim, after, dim, before))
        reach = min(before, _REACH)  # the slope of the layer, if its inputs had slope 1
        slope = 1 + leak * (reach - 1)
        scale = positive_inverse(jnp.asarray(reach / slope / before**0.5))
        grid = _REACH * jnp.asarray((2 * np.arange(after) + 1 - after) / after, float)
        self.kernel = nnx.Param(0.2 / dim**0.5 * kernel)
        self.scale = nnx.Param(jnp.full((dim, after), scale))
        self.bias = nnx.Param(jnp.tile(grid, (dim, 1)))
        shape = (dim, after, context_dim)
        self.from_context = nnx.Param(0.2 * jax.random.normal(draw_key(rngs), shape))

    def blocks(self, context: jax.Array | None) -> Blocks:
        """Return the normalised weights, with the context added to the bias."""
        kernel, t = self.kernel[...], np.arange(len(self.kernel[...]))
        below = jnp.where((t[:, None] > t)[:, None, :, None], kernel, 0)
        diagonal = positive(kernel[t, :, t])
        length = jnp.sqrt(jnp.square(below).sum((2, 3)) + jnp.square(diagonal).sum(2))
        scale = (positive(self.scale[...]) / length)[..., None]  # (D, a', 1)
        bias = self.bias[...]
        if context is not None:
            bias += self.from_context[...] @ context
        return Blocks(scale[..., None] * below, scale * diagonal, bias)


class BlockNetwork(Conditioner):
    """A conditioner whose row `t` holds $c^l_t$ of all layers: the input from earlier coordinates.

    Raises:
        ValueError: if `hidden` is empty, or for sizes or a leak out of range.
    """

    ABSENT = {"leak": 0.0}  # in archives from before there were leaks

    def __init__(
        self,
        dim: int,
        hidden: tuple[int, ...],
        *,
        context_dim: int = 0,
        leak: float = 0.0,
        rngs: nnx.Rngs,
    ):
        check_sizes(dim, 1, hidden, context_dim)
        check_number("leak", leak, lambda leak: 0 <= leak < 1, "in [0, 1)")
        if not len(hidden):
            raise ValueError("Expected at least one hidden layer, got hidden=().")
        self.event_shape = (dim,)
        self.context_shape = (context_dim,) if context_dim else None
        self.num_params = sum(hidden) + 1
        self.leak = float(leak)
        sizes = pairwise([1, *hidden, 1])
        layers = [BlockLinear(dim, *size, context_dim, self.leak, rngs) for size in sizes]
        self.layers = nnx.List(layers)

    def __call__(self, x, context=None):
        h, rows = x[:, None], []  # (D, a)
        for below, diagonal, bias in self.blocks(context):
            rows.append(jnp.tensordot(below, h, 2) + bias)
            h = _activate(self.leak, jnp.einsum("tij,tj->ti", diagonal, h) + rows[-1])
        return jnp.concatenate(rows, 1)  # (D, P)

    def blocks(self, context: jax.Array | None) -> list[Blocks]:
        """Return the weights of all layers."""
        return [layer.blocks(context) for layer in self.layers]

    def init_cache(self, context=None, dtype=float):
        layers = self.blocks(context)
        dtype = jnp.result_type(dtype, layers[0].bias)
        seen = [jnp.zeros(layer.below.shape[2:], dtype) for layer in layers]
        return layers, seen, [jnp.zeros(layer.bias.shape[1:], dtype) for layer in layers]

    def step(self, x_prev, t, cache):
        layers, seen, c = cache
        place = jnp.arange(self.event_shape[0])[:, None] == t - 1
        h, now = x_prev[None].astype(c[0].dtype), []
        for layer, h_seen, c_prev in zip(layers, seen, c, strict=True):
            now.append(jnp.where(place, h[None], h_seen))
            h = _activate(self.leak, layer.diagonal[t - 1] @ h + c_prev)
        pairs = zip(layers, now, strict=True)
        c = [jnp.tensordot(layer.below[t], h, 2) + layer.bias[t] for layer, h in pairs]
        return jnp.concatenate(c), (layers, now, c)


@dataclass(frozen=True)
class _Diagonal:
    """The map of one coordinate through its diagonal blocks, with its log-slope."""

    leak: float

    def __call__(self, y: jax.Array, params: Any) -> tuple[jax.Array, jax.Array]:
        (gate, weights), c = params
        c = jnp.split(c, np.cumsum([len(w) for w in weights])[:-1])
        u, log_slopes = weights[0] @ y[None] + c[0], jnp.log(weights[0][:, 0])  # (a,)
        for w, c_l in zip(weights[1:], c[1:], strict=True):
            log_slopes = _log_product(w, log_slopes + _log_slope(self.leak, u))
            u = w @ _activate(self.leak, u) + c_l
        gate = bound_softly(gate, _MAX_GATE)
        x = jax.nn.sigmoid(-gate) * y + jax.nn.sigmoid(gate) * u[0]
        return x, jnp.logaddexp(log_sigmoid(-gate), log_sigmoid(gate) + log_slopes[0])


@dataclass(frozen=True)
class _Emit:
    """The root of the map of one coordinate, for the serial direction."""

    diagonal: _Diagonal

    def __call__(self, inputs: Any, c: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, weights = inputs
        y = solve_monotone(Partial(self.diagonal), x, (weights, c))
        return y, -self.diagonal(y, (weights, c))[1]


def _log_product(w: jax.Array, v: jax.Array) -> jax.Array:
    """Return `log(w @ exp(v))` for positive `w`, without overflow or underflow."""
    top = jax.lax.stop_gradient(jnp.max(v))
    return top + jnp.log(w @ jnp.exp(v - top))


def _activate(leak: float, u: jax.Array) -> jax.Array:
    return leak * u + (1 - leak) * jnp.tanh(u) if leak else jnp.tanh(u)


def _log_slope(leak: float, u: jax.Array) -> jax.Array:
    """Return the logarithm of the derivative of `_activate`."""
    tanh = 2 * (math.log(2) - u - softplus(-2 * u))
    return jnp.logaddexp(math.log(leak), math.log1p(-leak) + tanh) if leak else tanh
