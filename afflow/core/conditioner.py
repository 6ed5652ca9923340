"""The conditioner protocol, and the decoding loop that every autoregressive model shares."""

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
from flax import nnx

from afflow._tools.arguments import check_number
from afflow._tools.modules import copy_module
from afflow._tools.outline import Outlined
from afflow._tools.scans import scan_back
from afflow._tools.shapes import Shape, check_size, check_sizes

Emit = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
"""`emit(input_t, params_t) -> (x_t, aux_t)`: one token of a decoding loop, as a callable
pytree (`jax.tree_util.Partial`)."""


class Place(NamedTuple):
    """A place in an event: the token before step `t`, `t`, and the cache after step `t - 1`."""

    x_prev: jax.Array
    t: jax.Array | int
    cache: Any

    def resized(self, net: "Conditioner", size: int) -> "Place":
        """Return the place with room for the first `size` tokens in the cache."""
        return self._replace(cache=net.resize(self.cache, size))


class Conditioner(Outlined, nnx.Module):
    r"""A network with causal outputs: $p_t = c_t(x_{<t}, context)$ depends on `x[:t]` only.

    An event is a sequence of `T` tokens. A token is a scalar, or a vector of `features` numbers. A
    subclass sets `event_shape` `(T,)` or `(T, features)`, `num_params` `P` and `context_shape`.
    `__call__` maps one event to parameters `(T, P)`, one row per token.

    By default each decoding step is a full pass. A subclass makes decoding incremental if it
    overrides `init_cache` and `step`, or `decode`. The leaves of its cache are floats.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from afflow.conditioners import Conditioner
        >>> class Previous(Conditioner):
        ...     event_shape, num_params, context_shape = (3,), 1, None
        ...     def __call__(self, x, context=None):
        ...         return jnp.concatenate([jnp.zeros(1), x[:-1]])[:, None]
        >>> Previous()(jnp.array([1.0, 2.0, 3.0])).tolist()
        [[0.0], [1.0], [2.0]]
    """

    event_shape: Shape
    context_shape: Shape | None
    num_params: int
    has_kernel = False  # whether `decode` takes the argument `kernel`
    knows_length: Any = True  # whether the weights are made for one number of tokens
    is_serial = False  # whether a pass is itself a loop over the steps
    cache_only_grows: Any = False  # whether a step keeps all that earlier steps put in the cache
    dropout: float = 0.0  # the probability with which `noisy` drops a unit

    def _set_sizes(
        self,
        length: int,
        num_params: int,
        widths: Any,
        *,
        features: int = 1,
        context_dim: int = 0,
        dropout: float | None = None,
    ) -> None:
        """Check the sizes of a network, and set the attributes that every conditioner has.

        Args:
            length: number of tokens `T`.
            num_params: parameters per token `P`.
            widths: the widths of the layers, a tuple.
            features: values in a token, 1 for a scalar.
            context_dim: length of the context vector; 0 for none.
            dropout: the probability to drop a unit, for a network that has dropout.

        Raises:
            ValueError: for sizes out of range, or a `dropout` outside of [0, 1).
        """
        check_sizes(length, num_params, widths, context_dim, features)
        self.event_shape = (length,) if features == 1 else (length, features)
        self.context_shape = (context_dim,) if context_dim else None
        self.num_params = num_params
        if dropout is not None:
            check_number("dropout", dropout, lambda share: 0 <= share < 1, "in [0, 1)")
            self.dropout = float(dropout)

    @abstractmethod
    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the parameters `(T, P)` of every token of one event `(T, *token)`."""

    def noisy(self, key: jax.Array, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the parameters with the noise of training, such as dropout, drawn with `key`."""
        return self._pass(x, context, key) if self.dropout else self(x, context)

    def _pass(self, x: jax.Array, context: jax.Array | None, key: jax.Array | None) -> jax.Array:
        """Return the parameters of one event; a key draws the noise of training.

        The default reads the event by `prefill`. A network with another way to drop units
        overrides it.
        """
        return self.read(x, self.begin(context, x.dtype), key)[0]

    @property
    def is_noisy(self) -> bool:
        """Whether `noisy` differs from a call."""
        return self.dropout > 0

    def without_noise(self) -> Self:
        """Return the conditioner whose `noisy` draws no noise."""
        return copy_module(self, dropout=0.0) if self.is_noisy else self

    def with_length(self, length: int) -> Self:
        """Return the conditioner with the same weights for events of `length` tokens.

        Raises:
            ValueError: if the weights are made for one number of tokens.
        """
        check_size("length", length)
        if length == self.event_shape[0]:
            return self
        if self.knows_length:
            raise ValueError(
                f"Expected {self.event_shape[0]} tokens, the number that the weights of "
                f"{type(self).__name__} are made for, got {length}: use a recurrent network."
            )
        return copy_module(self, event_shape=(length, *self.event_shape[1:]))

    def _drop(self, key: jax.Array | None, number: int, h: jax.Array) -> jax.Array:
        """Set a share of the units to zero and scale the others, which keeps the mean.

        `number` tells the places apart that share a key. Without a key nothing is dropped.
        """
        if key is None:
            return h
        dropped = jax.random.bernoulli(jax.random.fold_in(key, number), self.dropout, h.shape)
        return jnp.where(dropped, 0, h / (1 - self.dropout))

    @property
    def features(self) -> int:
        """Return the number of values in a token."""
        return math.prod(self.event_shape[1:])

    @property
    def is_incremental(self) -> bool:
        """Return whether the class overrides `step` or `decode`, to decode without full passes."""
        own, default = type(self), Conditioner
        return own.step is not default.step or own.decode is not default.decode

    @property
    def reads_at_once(self) -> bool:
        """Return whether the class overrides `prefill`, to read many tokens in one pass."""
        return type(self).prefill is not Conditioner.prefill

    @property
    def is_endless(self) -> bool:
        """Whether the cache of `step` has one size for every number of tokens."""
        if self.knows_length:
            return False
        other = self.with_length(self.event_shape[0] + 1)
        return _cache_shapes(self) == _cache_shapes(other)

    def init_cache(self, context: jax.Array | None = None, dtype: Any = float) -> Any:
        """Return the initial cache of `step`, for coordinates of type `dtype`."""
        return jnp.zeros(self.event_shape, dtype), context

    def step(self, x_prev: jax.Array, t: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        """Return the parameters `(P,)` of coordinate `t`, and the new cache.

        Steps run in order from `t = 0`. `x_prev` is `x[t - 1]`; at `t = 0` its value is ignored.
        """
        x, context = cache
        x = place(x, x_prev, t - 1)
        return self(x, context)[t], (x, context)

    def prefill(
        self, x_prev: jax.Array, t: jax.Array | int, cache: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Take the steps `t, ..., t + n - 1`; return their parameters `(n, P)` and the new cache.

        The default is a loop over `step`. A subclass overrides it to take known tokens in one pass.

        Args:
            x_prev: the token before each step `(n, *token)`; the token before step 0 is ignored.
            t: the first step.
            cache: the cache after the step before.
            key: draws the noise of training; no noise without a key.
        """

        def body(cache, scanned):
            x_prev, t = scanned
            params, cache = self.step(x_prev, t, cache)
            return cache, params

        cache, params = jax.lax.scan(body, cache, (x_prev, t + jnp.arange(len(x_prev))))
        return params, cache

    def begin(self, context: jax.Array | None = None, dtype: Any = float) -> Place:
        """Return the place before the first token of an event of type `dtype`."""
        return Place(jnp.zeros(self.event_shape[1:], dtype), 0, self.init_cache(context, dtype))

    def read(
        self, x: jax.Array, place: Place, key: jax.Array | None = None
    ) -> tuple[jax.Array, Place]:
        """Return the parameters `(n, P)` of the next tokens `(n, *token)`, and the place after."""
        x_prev = jnp.concatenate([place.x_prev[None], x[:-1]])
        params, cache = self.prefill(x_prev, place.t, place.cache, key)
        return params, Place(x[-1], place.t + len(x), cache)

    def decode(
        self, emit: Emit, inputs: Any, context: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Run the serial direction: `x[t], aux[t] = emit(inputs[t], c_t(x[:t], context))`."""
        nothing = jnp.zeros((0, *self.event_shape[1:]), find_dtype(inputs))
        return self.decode_after(nothing, emit, inputs, context)

    def decode_after(
        self, prompt: jax.Array, emit: Emit, inputs: Any, context: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Run the serial direction after the known tokens of a prompt.

        Args:
            prompt: the first `n` tokens `(n, *token)`, which `prefill` takes in one pass.
            emit: as in `decode`.
            inputs: the inputs of the other `T - n` tokens.
            context: the context of the event.
        """
        n, place, parts = len(prompt), self.begin(context, prompt.dtype), []
        if n:
            _, place = self.read(prompt, place.resized(self, n))
        for lo, hi in pairwise(sorted({n, *(end for end in self.segments() if end > n)})):
            part = jax.tree.map(lambda a, lo=lo, hi=hi: a[lo - n : hi - n], inputs)
            place, out = run_steps(self.step, place.resized(self, hi), emit, part)
            parts.append(out)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *parts)

    def segments(self) -> list[int]:
        """Return the tokens before which decoding resizes the cache: 0, ..., `T`."""
        return [0, self.event_shape[0]]

    def resize(self, cache: Any, size: int) -> Any:
        """Return the cache with room for the first `size` tokens."""
        return cache

    def solve_tangent(self, x: jax.Array, context: Any, gain: jax.Array, b: jax.Array):
        r"""Solve $v = b + g \cdot (C'(x)\, v)$ with $C'$ the Jacobian of the conditioner.

        Derivatives of decoding are solutions of this equation. A conditioner with steps solves it
        in one loop over the steps and their tangents. The Neumann series needs no steps.

        Args:
            x: the event `(T, *token)`.
            context: the context of the event.
            gain: $g$ `(T, *token, P)`, the derivative of each coordinate by its parameters.
            b: the right-hand side `(T, *token)`.
        """
        if type(self).step is Conditioner.step:
            _, push = jax.linearize(lambda x: self(x, context), x)
            return neumann(lambda v: _weighted(gain, push(v)), b)

        def body(carry, scanned):
            primals, tangents = carry
            t, x_t, gain_t, b_t = scanned
            (_, cache), (d_params, d_cache) = jax.jvp(
                lambda x_prev, cache: self.step(x_prev, t, cache), primals, tangents
            )
            v_t = b_t + _weighted(gain_t, d_params)
            return ((x_t, cache), (v_t, d_cache)), v_t

        start = jnp.zeros_like(x[0]), self.init_cache(context, x.dtype)
        carry = start, jax.tree.map(jnp.zeros_like, start)
        return jax.lax.scan(body, carry, (jnp.arange(len(x)), x, gain, b))[1]

    def solve_cotangent(
        self, x: jax.Array, context: Any, gain: jax.Array, source: jax.Array, b: jax.Array
    ):
        r"""Solve the transposed equation $v = b + C'(x)^T (g\, v + s)$.

        A conditioner with steps goes back through them. The cotangent of a token is complete when
        all later steps are done; its own step then gives cotangents of the token before and of the
        cache.

        Args:
            x: the event `(T, *token)`.
            context: the context of the event.
            gain: $g$, as in `solve_tangent`.
            source: $s$, with the shape of `gain`.
            b: the right-hand side `(T, *token)`.
        """
        if type(self).step is Conditioner.step:
            params, pull = jax.vjp(lambda x: self(x, context), x)

            def pulled(cotangents):
                return pull(cotangents.reshape(params.shape))[0]

            return neumann(lambda v: pulled(gain * v[..., None]), b + pulled(source))

        def advance(cache, scanned):
            t, x_prev, *_ = scanned
            return self.step(x_prev, t, cache)[1]

        def undo(after, scanned, cache):
            d_x, d_cache = after
            t, x_prev, gain_t, source_t, b_t = scanned
            v_t = b_t + d_x
            (params, _), pull = jax.vjp(lambda x, cache: self.step(x, t, cache), x_prev, cache)
            d_params = (gain_t * v_t[..., None] + source_t).reshape(params.shape)
            return pull((d_params, d_cache)), v_t

        start, x_prev = self.init_cache(context, x.dtype), jnp.zeros_like(x).at[1:].set(x[:-1])
        after = jnp.zeros_like(x[0]), jax.tree.map(jnp.zeros_like, start)
        steps = jnp.arange(len(x)), x_prev, gain, source, b
        if self.cache_only_grows:  # the last cache serves every step
            _, cache = self.prefill(x_prev, 0, start)
            return jax.lax.scan(partial(undo, cache=cache), after, steps, reverse=True)[1]
        return scan_back(advance, start, undo, after, steps)


def _cache_shapes(net: Conditioner) -> Any:
    shape = net.context_shape
    context = None if shape is None else jax.ShapeDtypeStruct(shape, float)
    return jax.eval_shape(net.init_cache, context)


def _weighted(gain: jax.Array, d_params: jax.Array) -> jax.Array:
    """Sum `gain * d_params` over the parameters of each coordinate."""
    return (gain * d_params.reshape(gain.shape)).sum(-1)


def run_steps(
    step: Callable, place: Place, emit: Emit, inputs: Any
) -> tuple[Place, tuple[jax.Array, Any]]:
    """Decode the next tokens; return the place after them, and the results of `emit`.

    Args:
        step: `step(x_prev, t, cache)`, which returns parameters and a cache.
        place: the place before the tokens.
        emit: as in `Conditioner.decode`.
        inputs: the inputs of the tokens.
    """
    x_prev, start, cache = place

    def body(carry, scanned):
        x_prev, cache = carry
        t, input_t = scanned
        params, cache = step(x_prev, t, cache)
        x_t, aux_t = emit(input_t, params)
        return (x_t, cache), (x_t, aux_t)

    first = jax.tree.map(lambda leaf: leaf[0], inputs)
    params, _ = jax.eval_shape(step, x_prev, start, cache)
    x_t, _ = jax.eval_shape(emit, first, params)
    size = len(jax.tree.leaves(inputs)[0])
    scanned = start + jnp.arange(size), inputs
    (x_prev, cache), out = jax.lax.scan(body, (x_prev.astype(x_t.dtype), cache), scanned)
    return Place(x_prev, start + size, cache), out


def find_dtype(inputs: Any) -> Any:
    """Return the float type of the first array, or the default one if its numbers are integers."""
    dtype = jax.tree.leaves(inputs)[0].dtype
    return dtype if jnp.issubdtype(dtype, jnp.floating) else float


def given(x_t: jax.Array, params: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Emit the known coordinate `x_t` and its parameters, which makes decoding a density pass."""
    return x_t, params


def place(x: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """Return `x` with `x_t` at index `t`, or `x` unchanged if `t` is out of range."""
    here = (jnp.arange(len(x)) == t).reshape(-1, *(1,) * (x.ndim - 1))
    return jnp.where(here, x_t[None].astype(x.dtype), x)


def neumann(linear: Callable, b: jax.Array) -> jax.Array:
    """Solve `v = b + linear(v)` for a strictly triangular `linear`.

    The Neumann series has at most `len(b)` terms. The sum stops early if one more term does not
    change it, as with weak coupling between the coordinates.
    """

    def unfinished(state):
        previous, v, terms = state
        return (terms < len(b)) & jnp.any(previous != v)

    def add_term(state):
        _, v, terms = state
        return v, b + linear(v), terms + 1

    return jax.lax.while_loop(unfinished, add_term, (jnp.zeros_like(b), b, 0))[1]
