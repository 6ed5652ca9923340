"""An autoregressive density model: the chain rule with a conditioner and a conditional."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from afflow._tools.arguments import check_instance, check_positive
from afflow._tools.arrays import to_device
from afflow._tools.calls import call, check_booleans, check_ending, per_event
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_permutation
from afflow.bijectors.solvers import Incremental, Solver
from afflow.core.conditional import Conditional, check_values
from afflow.core.conditioner import Conditioner, Emit, Place
from afflow.models.dropout import add_noise, has_dropout, remove_dropout
from afflow.models.emission import check_fit, codes, emit_and_keys, heat
from afflow.models.generation import Drawing, beam_search, complete_by_beam, generate, stream
from afflow.models.marginals import check_missing_last


class AutoregressiveModel(Outlined, nnx.Module):
    r"""A density by the chain rule, each token conditional on the earlier tokens.

    $$\log p(x \mid h) = \sum_t \log p(x_t;\, c_t(x_{<t}, h)).$$

    A token is usually a coordinate, and `T` the dimension `D` of a vector. A conditional of whole
    tokens, such as `TokenModel`, has tokens of several values. A density takes one pass of the
    conditioner. Sampling runs the conditioner's serial loop. Both are exact. The methods take any
    leading batch axes and are compiled, as in `Flow`.

    Args:
        conditioner: maps `(T,)` to `(T, P)`; row `t` depends on `x[:t]` and the context only. For a
            conditional that encodes a value as `features` numbers, it maps `(T, features)` to
            `(T, P)`.
        conditional: a distribution of a token with `P` parameters.
        order: the tokens in the order of the chain rule, by default the natural one.
        solver: runs the serial direction of `sample`, `greedy` and `complete`. The tokens do not
            depend on the solver, but for rounding in the parameters.
        learning_rate: the default of `fit` for this model.

    Raises:
        ValueError: if the conditioner and the conditional do not fit together, or `order` is not a
            permutation. The methods raise it for inputs of the wrong shape.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> made = afflow.MADE(3, 1, rngs=nnx.Rngs(0))
        >>> model = afflow.AutoregressiveModel(made, afflow.conditionals.Bernoulli())
        >>> round(model.log_prob(jnp.array([0, 1, 1])).item(), 4)
        -2.0794
        >>> model.sample(jax.random.key(0), 5).shape
        (5, 3)
    """

    ABSENT = {"solver": Incremental()}  # older archives have no solver

    def __init__(
        self,
        conditioner: Conditioner,
        conditional: Conditional,
        order: Sequence[int] | None = None,
        *,
        solver: Solver = Incremental(),
        learning_rate: float = 1e-3,
    ):
        check_fit(conditioner, conditional)
        check_instance("solver", solver, Solver)
        check_positive(learning_rate=learning_rate)
        length = conditioner.event_shape[0]
        self.conditioner = conditioner
        self.conditional = conditional
        self.order = None if order is None else check_permutation("order", order, length)
        self.solver = solver
        self.learning_rate = learning_rate
        self.event_shape = (length, *conditional.event_shape)
        self.context_shape = conditioner.context_shape

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-probability, or log-density, of events: `(...)` in nats.

        Args:
            x: events `(..., *event_shape)`.
            context: `(..., *context_shape)`.
            chunk: the number of events to compute at a time, to save memory; by default all.
        """
        return self.log_conditionals(x, context, chunk=chunk).sum(-1)

    def log_conditionals(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        r"""Return $\log p(x_t \mid x_{<t})$ of every token, `(..., T)` in nats.

        Entry `t` of the result belongs to token `t` of `x`. The sum over the first `k` tokens of
        the order is their log-marginal.
        """
        return call(_log_conditionals, self, (self._events(x),), context, chunk=chunk)

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return `log_prob` with the noise of training, such as dropout, drawn with `key`."""
        return self._noisy_terms(key, self._events(x), context).sum(-1)

    def _noisy_terms(self, key, x, context):
        if not self.is_noisy:
            return self.log_conditionals(x, context)
        return call(_noisy_log_conditionals, self, (x,), context, key=key)

    @property
    def is_noisy(self) -> bool:
        """Whether `training_log_prob` draws noise, in the conditioner or within a token."""
        return has_dropout(self)

    def without_noise(self) -> "AutoregressiveModel":
        """Return the model whose `training_log_prob` draws no noise, for validation."""
        return remove_dropout(self)

    def with_length(self, length: int) -> "AutoregressiveModel":
        """Return the model with the same weights for events of `length` tokens.

        Raises:
            ValueError: if the weights are made for one number of tokens, or the model has an order.
        """
        if self.order is not None and length != self.event_shape[0]:
            raise ValueError(f"Expected a model without an order, got order={self.order}.")
        conditioner = self.conditioner.with_length(length)
        options: dict[str, Any] = {"order": self.order, "solver": self.solver}
        options["learning_rate"] = self.learning_rate
        return AutoregressiveModel(conditioner, self.conditional, **options)

    def check_missing(self, x: np.ndarray) -> None:
        """Raise `ValueError` if a row has an observed token after a missing one in the order.

        Args:
            x: rows `(..., *event_shape)`, with NaN for missing values.
        """
        missing = np.asarray(np.isnan(x).any(self._inner))
        check_missing_last(missing if self.order is None else missing[..., self.order])

    def observed_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-marginal `(...)` of the tokens of `x` that are not NaN.

        Events of different lengths are rows of one length that end in NaN.

        Args:
            key: a PRNG key for the noise of training, which `without_noise` removes.
            x: events `(..., *event_shape)`, with NaN for missing values.
            context: `(..., *context_shape)`.

        Raises:
            ValueError: outside of compiled functions, for an observed token after a missing one.
        """
        x = self._events(x)
        if not isinstance(x, Tracer):
            self.check_missing(np.asarray(x))
        missing = jnp.isnan(x).any(self._inner)  # (..., T), as the terms
        terms = self._noisy_terms(key, jnp.where(self._of_tokens(missing), 0, x), context)
        return jnp.where(missing, 0, terms).sum(-1)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        temperature: float = 1.0,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw samples `(*shape, *context_batch, *event_shape)`, exact at temperature 1.

        A `temperature` below 1 sharpens every conditional; above 1 flattens it. With `chunk`,
        the samples are drawn in parts of that size, to save memory.
        """
        options = {"key": key, "shape": shape, "chunk": chunk}
        return call(_fill, self, self._blank(), context, heat(temperature), **options)

    def greedy(self, context: jax.Array | None = None) -> jax.Array:
        """Return events whose every token is the mode, `(*context_batch, *event_shape)`."""
        return call(_fill, self, self._blank(), context, heat(1.0))

    def complete(
        self,
        x: jax.Array,
        observed: jax.Array,
        key: jax.Array | None = None,
        context: jax.Array | None = None,
        *,
        temperature: float = 1.0,
        width: int | None = None,
    ) -> jax.Array:
        """Draw the tokens of `x` `(..., *event_shape)` that are not `observed`, given the others.

        The completion is exact. It is therefore refused unless the observed tokens come first in
        the order. For any other subset use an order-agnostic model such as
        `afflow.zoo.deep_nade`.

        Args:
            x: events; values that are not observed are ignored.
            observed: booleans `(..., T)`, one for each token.
            key: a PRNG key. Without a key, every token is the mode of its conditional.
            context: `(..., *context_shape)`.
            temperature: as in `sample`.
            width: return the most probable completion that a beam search of this width finds,
                instead of a draw; for symbols only. Width 1 takes the mode of each token in turn.

        Raises:
            ValueError: if an observed token comes after an unobserved one, an observed value is not
                a whole number although the conditional is discrete, or `observed` is not boolean.
        """
        mask = np.asarray(check_booleans("observed", observed))
        mask = mask if self.order is None else mask[..., self.order]
        if (mask[..., 1:] & ~mask[..., :-1]).any():
            raise ValueError(
                "Expected observed tokens to come first in the order, got one after an "
                "unobserved one: its completion is not exact. Give the model another order, "
                "or use an order-agnostic one (afflow.zoo.deep_nade)."
            )
        events = self._events(x), self._events(self._of_tokens(observed))
        check_values(self.conditional, *events)
        if width is not None:
            return complete_by_beam(self, *events, context, width)
        return call(_fill, self, events, context, heat(temperature), key=key)

    def generate(
        self,
        key: jax.Array,
        prompt: jax.Array | None = None,
        length: int | None = None,
        context: jax.Array | None = None,
        *,
        shape: int | Shape = (),
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: int | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Draw the tokens after a prompt; return whole events and log-probabilities.

        Args:
            key: a PRNG key.
            prompt: the first tokens `(*batch, n, *token)`; none by default.
            length: the number of tokens of the result, prompt included. The default is the
                number that the model is made for. Other lengths need weights that know no length,
                as those of `Recurrent`.
            context: `(*context_batch, *context_shape)`; broadcasts with the prompt.
            shape: how many events to draw for each prompt and context.
            temperature: below 1 sharpens every conditional, above 1 flattens it.
            top_k: draw from the `top_k` most probable symbols only; 1 is greedy.
            top_p: draw from the most probable symbols only that have this probability together.
            stop: the symbol that ends an event. Tokens after its first draw are set to it.

        Returns:
            Events `(*shape, *batch, length, *token)`, and `(*shape, *batch)` log-probabilities of
            their drawn tokens under the model, at temperature 1 and without top_k and top_p, in
            nats.

        Raises:
            ValueError: for a prompt that does not fit, numbers out of range, a length that the
                weights do not allow, or a model with an order.

        Example:
            >>> import afflow, jax
            >>> from flax import nnx
            >>> network = afflow.conditioners.Recurrent(4, 3, (8,), features=3, rngs=nnx.Rngs(0))
            >>> model = afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(3))
            >>> prompt = jax.numpy.array([2, 0])
            >>> tokens, log_prob = model.generate(jax.random.key(0), prompt, 8, top_k=2, shape=5)
            >>> tokens.shape, log_prob.shape
            ((5, 8), (5,))
        """
        drawing = Drawing(temperature, top_k, top_p, stop)
        return generate(self, drawing, key, prompt, length, context, shape)

    def stream(
        self,
        key: jax.Array,
        prompt: jax.Array | None = None,
        length: int | None = None,
        context: jax.Array | None = None,
        *,
        chunk: int = 64,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: int | None = None,
    ) -> Iterator[tuple[np.ndarray, float]]:
        """Draw the tokens after a prompt in parts, each as soon as it is drawn.

        The tokens are the tokens that `generate` draws with the same key.

        Args:
            key: a PRNG key.
            prompt: the first tokens `(n, *token)` of one event; none by default.
            length: the number of tokens, prompt included. Without it the generator does not end by
                itself, which needs a cache that does not grow, such as the cache of `Recurrent` or
                `WaveNet`.
            context: one context.
            chunk: the number of tokens in a part.
            temperature: as in `generate`.
            top_k: as in `generate`.
            top_p: as in `generate`.
            stop: the symbol that ends the event. The last part ends with it.

        Yields:
            The tokens of a part `(chunk, *token)`, and their log-probability as in `generate`.

        Raises:
            ValueError: as `generate`, or for several prompts or contexts.

        Example:
            >>> import afflow, itertools, jax
            >>> from flax import nnx
            >>> network = afflow.conditioners.Recurrent(4, 3, (8,), features=3, rngs=nnx.Rngs(0))
            >>> model = afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(3))
            >>> parts = model.stream(jax.random.key(0), chunk=5)
            >>> [len(tokens) for tokens, log_prob in itertools.islice(parts, 3)]
            [5, 5, 5]
        """
        drawing = Drawing(temperature, top_k, top_p, stop)
        return stream(self, drawing, key, prompt, length, context, chunk)

    def beam_search(
        self,
        prompt: jax.Array | None = None,
        length: int | None = None,
        context: jax.Array | None = None,
        *,
        width: int = 4,
        length_penalty: float = 0.0,
        stop: int | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        r"""Return probable continuations of a prompt, the best first; exact for a wide enough beam.

        The search keeps the `width` most probable beginnings at every token. With width 1 it is
        greedy.

        Args:
            prompt: the first tokens `(*batch, n)`; none by default.
            length: the number of tokens of the result, see `generate`.
            context: `(*context_batch, *context_shape)`; broadcasts with the prompt.
            width: the number of beams `W`.
            length_penalty: $\alpha$ in $\log p \,/\, ((5 + n)/6)^\alpha$. At the end, beams of `n`
                drawn tokens are ranked by it (Wu et al. 2016, arXiv:1609.08144, eq. 14).
            stop: the symbol that ends a beam.

        Returns:
            Events `(*batch, W, length)`, and the log-probabilities `(*batch, W)` of their tokens
            after the prompt, in nats. If there are fewer than `W` events, the surplus has
            log-probability minus infinity.

        Raises:
            ValueError: as `generate`, or for a continuous conditional.

        Example:
            >>> import afflow, jax
            >>> from flax import nnx
            >>> model = afflow.fvsbn(3, rngs=nnx.Rngs(0))
            >>> events, log_probs = model.beam_search(width=8)
            >>> events.shape, round(float(jax.numpy.exp(log_probs).sum()), 4)
            ((8, 3), 1.0)
        """
        return beam_search(self, prompt, length, context, width, length_penalty, stop)

    def log_conditionals_of_one(
        self, x: jax.Array, context: jax.Array | None = None, key: jax.Array | None = None
    ) -> jax.Array:
        """Return `log_conditionals` of one event, without checks; a key draws noise of training."""
        if key is not None:
            return add_noise(self, key).log_conditionals_of_one(x, context)
        x = self._sort(x)
        params = self.conditioner(codes(self.conditional, x), context)
        return self._unsort(jax.vmap(self.conditional.log_prob)(x, params))

    def read(
        self, x: jax.Array, place: Place, key: jax.Array | None = None
    ) -> tuple[jax.Array, Place]:
        """Return the log-conditionals `(n,)` of the next tokens of one event, and the place after.

        The model has no order. The first place is `conditioner.begin(context)`.

        Args:
            x: the next tokens `(n, *token)`.
            place: the place before them.
            key: draws the noise of training; no noise without a key.
        """
        params, place = self.conditioner.read(codes(self.conditional, x), place, key)
        conditional: Any = self.conditional
        if key is not None:
            conditional = add_noise(conditional, key)
        return jax.vmap(conditional.log_prob)(x, params), place

    @property
    def _inner(self) -> tuple[int, ...]:
        """The axes of a token within an array of events."""
        return tuple(range(1 - len(self.event_shape), 0))

    def _of_tokens(self, values):
        """Repeat one value for each token `(..., T)` over the values of the token."""
        values = jnp.asarray(values)
        token = self.event_shape[1:]
        return jnp.broadcast_to(
            values.reshape(*values.shape, *(1 for _ in token)), (*values.shape, *token)
        )

    def _events(self, x):
        return check_ending("x", to_device("x", x), self.event_shape)

    def _sort(self, x):
        """Reorder tokens from the natural order to the order of the chain rule."""
        return x if self.order is None else x[np.array(self.order)]

    def _unsort(self, x):
        """Reorder tokens from the order of the chain rule to the natural order."""
        return x if self.order is None else x[np.argsort(self.order)]

    def _blank(self):
        """Return an event without observed tokens."""
        return jnp.zeros(self.event_shape), jnp.zeros(self.event_shape, bool)


@per_event
def _log_conditionals(model, item, context):
    return model.log_conditionals_of_one(*item, context)


@per_event
def _noisy_log_conditionals(model, item, context):
    x, key = item
    return model.log_conditionals_of_one(x, context, key)


@per_event
def _fill(model, item, context, temperature):
    """Draw the tokens that are not observed, or take their modes if there is no key."""
    x, observed, *key = item
    observed = observed.reshape(len(x), -1)[:, 0]
    return decode(model, x, observed, context, temperature, *key)


def decode(
    model: AutoregressiveModel,
    x: jax.Array,
    observed: jax.Array,
    context: jax.Array | None,
    temperature: jax.Array,
    *key: jax.Array,
) -> jax.Array:
    """Draw one event, or take modes if there is no key; `observed` `(T,)` tokens keep their values.

    The observed tokens are first in the order of the model.
    """
    emit, *keys = emit_and_keys(model.conditional, temperature, len(x), *key)
    return decode_with(model, emit, context, x, observed, keys=keys)


def decode_with(
    model: AutoregressiveModel,
    emit: Emit,
    context: jax.Array | None,
    *values: jax.Array,
    keys: Sequence[jax.Array] = (),
) -> jax.Array:
    """Decode one event: its tokens are the second results of `emit`, in the order of the model.

    Args:
        model: the model of the event.
        emit: as in `Conditioner.decode`. The input of a step is the tuple of the values of its
            token, followed by its keys.
        context: the context of the event.
        *values: arrays `(T, ...)` with an entry for each token, in the natural order.
        keys: arrays `(T, ...)` with an entry for each step.
    """
    inputs = *map(model._sort, values), *keys
    _, x = model.solver.run(model.conditioner, emit, inputs, context)
    return model._unsort(x)
