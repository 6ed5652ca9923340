"""A masked network over a directed acyclic graph of any shape."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_callable, check_rngs, draw_key
from afflow._tools.shapes import check_sizes
from afflow.core.conditioner import Conditioner


class Graphical(Conditioner):
    r"""A conditioner whose nodes see their parents only: $p_t = c_t(x_{\mathrm{pa}(t)}, h)$.

    One masked network serves all nodes. Every hidden unit stands for a set of parents that some
    node has. The unit sees the inputs in that set, the context $h$, and hidden units whose sets
    are subsets of that set. Decoding computes all nodes with known parents at once. The number
    of passes is therefore the number of nodes on the longest path, not `D`.

    Wehenkel & Louppe 2021, arXiv:2006.02548 (graphical normalizing flows).

    Args:
        adjacency: `(D, D)` booleans, row `t` true at the parents of node `t`. Nodes are in
            topological order: every parent comes before its children. To use another order,
            put a `Permutation` in front.
        num_params: parameters per coordinate `P`.
        hidden: widths of the hidden layers. A layer needs one unit for each distinct set of
            parents; a narrower layer is widened to that number.
        context_dim: length of the context vector, which every node sees; 0 for none.
        activation: the elementwise nonlinearity.
        rngs: its `params` stream draws the initial weights.

    Raises:
        ValueError: for an adjacency matrix that is not square or not in topological order, or
            for sizes out of range.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> fork = [[0, 0, 0], [1, 0, 0], [1, 0, 0]]  # 0 -> 1, 0 -> 2
        >>> net = afflow.conditioners.Graphical(fork, 2, (16,), rngs=nnx.Rngs(0))
        >>> net(jnp.ones(3)).shape, net.num_levels
        ((3, 2), 2)
    """

    def __init__(
        self,
        adjacency: Sequence[Sequence[bool]],
        num_params: int,
        hidden: tuple[int, ...] = (64, 64),
        *,
        context_dim: int = 0,
        activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
        rngs: nnx.Rngs,
    ):
        parents = _checked(adjacency)
        check_callable("activation", activation, "jax.nn.relu")
        check_rngs(rngs)
        check_sizes(len(parents), num_params, hidden, context_dim)
        self.adjacency = tuple(tuple(row) for row in parents.tolist())
        self.event_shape = (len(parents),)
        self.context_shape = (context_dim,) if context_dim else None
        self.num_params = num_params
        self.hidden = tuple(hidden)
        self.activation = activation
        self.num_levels = _find_longest_path(parents)
        masks = self._masks()
        self.kernels = nnx.List(
            [nnx.Param(_draw_initial(mask, draw_key(rngs))) for mask in masks[:-1]]
        )
        self.kernels.append(nnx.Param(jnp.zeros(masks[-1].shape)))
        self.biases = nnx.List([nnx.Param(jnp.zeros(len(mask))) for mask in masks])

    def __call__(self, x, context=None):
        h = x if context is None else jnp.concatenate([context, x])
        for layer, mask in enumerate(self._masks()):
            h = h if layer == 0 else self.activation(h)
            kernel = jnp.where(mask, self.kernels[layer][...], 0)
            h = kernel @ h + self.biases[layer][...]
        return h.reshape(-1, self.num_params)  # (D, P)

    def decode(self, emit, inputs, context=None):
        def decode_level(x, _):
            return jax.vmap(emit)(inputs, self(x, context))

        dtype = jnp.result_type(*jax.tree.leaves(inputs))
        start = jax.eval_shape(decode_level, jax.ShapeDtypeStruct(self.event_shape, dtype), None)[0]
        x = jnp.zeros(start.shape, start.dtype)
        x, _ = jax.lax.scan(
            lambda x, _: (decode_level(x, None)[0], None), x, length=self.num_levels - 1
        )
        return decode_level(x, None)

    def _masks(self) -> list[np.ndarray]:
        """Return the masks `(rows, columns)` of the layers."""
        parents = np.array(self.adjacency, bool)
        distinct = np.unique(parents, axis=0)
        widths = [max(width, len(distinct)) for width in self.hidden]
        sets = [distinct[np.arange(width) * len(distinct) // width] for width in widths]
        first, *others = [*sets, parents]
        size = self.context_shape[0] if self.context_shape else 0
        masks = [np.concatenate([np.ones((len(first), size), bool), first], 1)]
        masks += [_find_subset(inner, outer) for inner, outer in pairwise([first, *others])]
        return [*masks[:-1], np.repeat(masks[-1], self.num_params, 0)]


def _find_subset(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Return `(outer, inner)` booleans, true where an `inner` set is a subset of an `outer` set."""
    return np.all(~inner[None] | outer[:, None], axis=-1)


def _find_longest_path(parents: np.ndarray) -> int:
    """Return the number of nodes on the longest path of the graph."""
    levels = np.ones(len(parents), int)
    for node, row in enumerate(parents):
        levels[node] += levels[row].max(initial=0)
    return int(levels.max())


def _checked(adjacency) -> np.ndarray:
    parents = np.asarray(adjacency).astype(bool)
    if parents.ndim != 2 or parents.shape[0] != parents.shape[1] or not len(parents):
        raise ValueError(f"Expected an adjacency matrix (D, D), got shape {parents.shape}.")
    if np.triu(parents).any():
        edges = np.argwhere(np.triu(parents)).tolist()
        raise ValueError(
            f"Expected nodes in topological order, parents (columns) before children (rows), "
            f"got {edges[:5]}: sort the nodes, and bring x in that order by a Permutation."
        )
    return parents


def _draw_initial(mask: np.ndarray, key: jax.Array) -> jax.Array:
    """Draw a kernel with variance 1 / (number of inputs that a unit sees)."""
    scale = 1 / np.sqrt(np.maximum(mask.sum(1), 1))[:, None]
    return jax.random.normal(key, mask.shape) * jnp.asarray(mask * scale, float)
