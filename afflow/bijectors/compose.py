"""Composition: a chain of different bijectors, and one bijector repeated."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from afflow._tools.arguments import check_callable, check_instance, check_instances, check_rngs
from afflow._tools.lowering import on_gpu
from afflow._tools.programs import find_operations
from afflow._tools.shapes import check_size, find_context_shape
from afflow.bijectors.permutations import Permutation
from afflow.core.bijector import Bijector

_FEW = 8


class Chain(Bijector):
    r"""Bijectors one after the other: `Chain([a, b])` applies `a` first going forward.

    $$f = f_n \circ \dots \circ f_1, \qquad \log|\det J_f| = \sum_i \log|\det J_{f_i}|.$$

    Args:
        bijectors: at least one; all with the same `event_shape`.

    Raises:
        ValueError: if empty, or if event or context shapes disagree.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> shift = afflow.Standardize(jnp.array([1.0, 0.0]), jnp.ones(2))
        >>> afflow.Chain([shift, afflow.Reverse(2)]).forward(jnp.zeros(2)).tolist()
        [0.0, 1.0]
    """

    def __init__(self, bijectors: Sequence[Bijector]):
        check_instances("bijectors", bijectors, Bijector)
        shapes = [b.event_shape for b in bijectors]
        if not shapes or any(shape != shapes[0] for shape in shapes):
            raise ValueError(f"Expected bijectors of one event_shape, got {shapes}.")
        self.bijectors = nnx.List(bijectors)
        self.event_shape = shapes[0]
        self.context_shape = find_context_shape(*(b.context_shape for b in bijectors))

    @property
    def is_triangular(self) -> bool:
        return all(bijector.is_triangular for bijector in self.bijectors)

    @property
    def noise_order(self) -> tuple[int, ...] | None:
        places = np.arange(math.prod(self.event_shape))
        may_reorder = True
        for bijector in self.bijectors:
            order = bijector.noise_order
            if order is None or not (may_reorder or bijector.is_triangular):
                return None
            places = places[np.array(order)]
            may_reorder = may_reorder and _is_reordering(bijector)
        return tuple(places.tolist())

    def walk(self, x, context, visit, *, forward=False):
        for bijector in self.bijectors if forward else reversed(self.bijectors):
            x = bijector.walk(x, context, visit, forward=forward)
        return x

    def forward_and_log_det(self, x, context=None):
        log_det = jnp.zeros((), jnp.float32)
        for bijector in self.bijectors:
            x, term = bijector.forward_and_log_det(x, context)
            log_det += term
        return x, log_det

    def inverse_and_log_det(self, y, context=None):
        log_det = jnp.zeros((), jnp.float32)
        for bijector in reversed(self.bijectors):
            y, term = bijector.inverse_and_log_det(y, context)
            log_det += term
        return y, log_det


class Repeat(Bijector):
    """`n` copies of one bijector, each with separate parameters, run by `lax.scan`.

    The same map as a `Chain` of the copies, at a compile time that does not grow with
    `n`. Prefer `Chain` for a few layers, `Repeat` beyond about eight.

    Args:
        make: builds one copy from `rngs`; every copy must have the same structure.
        n: the number of copies, at least one.
        unroll: write the copies out where one copy has no loop, as in the density pass of a
            MAF. On a GPU up to eight copies are always written out. A training step of narrow
            layers is then quicker, because no scan stores its steps in stacks; it takes longer
            to compile, and up to twice the memory.
        rngs: handed to `make` for each copy in turn.

    Raises:
        ValueError: if `n < 1`, or if `make` builds copies that differ in more than the
            values of their arrays (a random `Permutation`, say: `Shuffle` is one that may).

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> def layer(rngs):
        ...     made = afflow.MADE(3, 2, hidden=(8,), rngs=rngs)
        ...     return afflow.MaskedAutoregressive(made, afflow.Affine())
        >>> afflow.Repeat(layer, 16, rngs=nnx.Rngs(0)).event_shape
        (3,)
    """

    def __init__(
        self,
        make: Callable[[nnx.Rngs], Bijector],
        n: int,
        *,
        unroll: bool = False,
        rngs: nnx.Rngs,
    ):
        check_callable("make", make, "lambda rngs: Reverse(3)")
        check_size("n", n)
        check_rngs(rngs)
        copies = [make(rngs) for _ in range(n)]
        check_instances("make(rngs)", copies, Bijector)
        if len({jax.tree.structure(copy) for copy in copies}) > 1:
            raise ValueError(
                "Expected make(rngs) to build copies that differ in their arrays only; "
                "use Chain for layers of different structure."
            )
        self.layers = _stack(copies)
        self.n, self.unroll = n, unroll
        self.event_shape = copies[0].event_shape
        self.context_shape = copies[0].context_shape

    @property
    def is_triangular(self) -> bool:
        return self.layers.is_triangular

    def to_chain(self) -> Chain:
        """Return the chain of the copies, the same map."""
        return Chain(self._copies())

    def _copies(self):
        return [jax.tree.map(lambda leaf, i=i: leaf[i], self.layers) for i in range(self.n)]

    def walk(self, x, context, visit, *, forward=False):
        copies = self._copies()
        for copy in copies if forward else reversed(copies):
            x = copy.walk(x, context, visit, forward=forward)
        self.layers = _stack(copies)
        return x

    def forward_and_log_det(self, x, context=None):
        def layer(x, bijector):
            return bijector.forward_and_log_det(x, context)

        return self._scan(layer, x, reverse=False)

    def inverse_and_log_det(self, y, context=None):
        def layer(y, bijector):
            return bijector.inverse_and_log_det(y, context)

        return self._scan(layer, y, reverse=True)

    def _scan(self, layer, x, *, reverse):
        first = jax.tree.map(lambda leaf: leaf[0], self.layers)
        out, _ = jax.eval_shape(layer, x, first)
        unroll = self.unroll or (on_gpu() and self.n <= _FEW)
        x, unroll = x.astype(out.dtype), unroll and not _runs_loops(layer, x, first)
        options = {"length": self.n, "reverse": reverse, "unroll": unroll}
        x, log_dets = jax.lax.scan(layer, x, self.layers, **options)
        return x, log_dets.sum(0)


def _stack(copies: list[Bijector]) -> Bijector:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies)


def _runs_loops(f: Callable, *args) -> bool:
    """Return whether `f` runs loops, whose code is long to compile again and again.

    Loops inside a GPU kernel do not count, nor do the loops that replace the kernel elsewhere.
    """
    names = find_operations(f, *args)
    return not names.isdisjoint({"scan", "while"}) and "pallas_call" not in names


class Inverse(Bijector):
    """A bijector read in the other direction: an IAF is the `Inverse` of a MAF.

    Args:
        bijector: the bijector whose `forward` becomes `inverse`, and vice versa.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> shift = afflow.Standardize(jnp.array([1.0, 2.0]), jnp.ones(2))
        >>> afflow.Inverse(shift).forward(jnp.zeros(2)).tolist()
        [-1.0, -2.0]
    """

    def __init__(self, bijector: Bijector):
        check_instance("bijector", bijector, Bijector)
        self.bijector = bijector
        self.event_shape = bijector.event_shape
        self.context_shape = bijector.context_shape

    @property
    def is_triangular(self) -> bool:
        return self.bijector.is_triangular

    @property
    def noise_order(self) -> tuple[int, ...] | None:
        if not _is_reordering(self):
            return super().noise_order
        order = self.bijector.noise_order
        return None if order is None else tuple(np.argsort(order).tolist())

    def walk(self, x, context, visit, *, forward=False):
        return self.bijector.walk(x, context, visit, forward=not forward)

    def forward_and_log_det(self, x, context=None):
        return self.bijector.inverse_and_log_det(x, context)

    def inverse_and_log_det(self, y, context=None):
        return self.bijector.forward_and_log_det(y, context)


def _is_reordering(bijector: Bijector) -> bool:
    while isinstance(bijector, Inverse):
        bijector = bijector.bijector
    return isinstance(bijector, Permutation)
