"""Generation: tokens drawn after a prompt, and the most probable tokens by beam search."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from afflow._tools.arguments import check_number
from afflow._tools.arrays import to_device
from afflow._tools.calls import call, check_context, make_typed, per_event
from afflow._tools.lowering import use_float32_products
from afflow._tools.meshes import placed
from afflow._tools.shapes import Shape, check_size
from afflow.core.conditional import check_values
from afflow.core.conditioner import Conditioner, Place, run_steps
from afflow.models.emission import as_pytree, check_temperature, codes


class Drawing(NamedTuple):
    """How a token is drawn, see `AutoregressiveModel.generate`."""

    temperature: Any
    top_k: Any = None
    top_p: Any = None
    stop: Any = None

    def check(self, model: Any) -> None:
        """Raise `ValueError` for numbers out of range, or settings for symbols without symbols."""
        check_temperature(self.temperature)
        if self.top_k is not None:
            check_size("top_k", self.top_k)
        if self.top_p is not None:
            check_number("top_p", self.top_p, lambda share: 0 < share <= 1, "in (0, 1]")
        if any(setting is not None for setting in self[1:]):
            check_symbols(model)
        check_stop(model, self.stop)


def generate(
    model: Any,
    drawing: Drawing,
    key: jax.Array,
    prompt: jax.Array | None,
    length: int | None,
    context: jax.Array | None,
    shape: int | Shape,
) -> tuple[jax.Array, jax.Array]:
    """Draw tokens after a prompt, see `AutoregressiveModel.generate`."""
    model = _lengthen(model, length)
    drawing.check(model)
    prompt = check_prompt(model, prompt)
    return call(_generate, model, (prompt,), context, (drawing,), key=key, shape=shape)


def stream(
    model: Any,
    drawing: Drawing,
    key: jax.Array,
    prompt: jax.Array | None,
    length: int | None,
    context: jax.Array | None,
    chunk: int,
) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the tokens after a prompt in parts, see `AutoregressiveModel.stream`."""
    check_size("chunk", chunk)
    drawing.check(model)
    if length is None and not model.conditioner.is_endless:
        raise ValueError(
            f"Expected a length: the cache of {type(model.conditioner).__name__} grows with it."
        )
    size = 0 if prompt is None or np.ndim(prompt) == 0 else len(prompt)
    model = _lengthen(model, max(size, model.event_shape[0]) if length is None else length)
    prompt, context = check_prompt(model, prompt), check_context(model, context)
    given = None if context is None else context.shape
    if prompt.ndim != len(model.event_shape) or given != model.context_shape:
        raise ValueError(
            f"Expected one prompt and one context, got shapes {prompt.shape} and {given}: use "
            f"generate for several."
        )
    key = jax.random.split(make_typed(key), 1)[0]  # the key of the first event of `generate`
    return _stream(model, drawing, key, prompt, length, context, chunk)


def _stream(model, drawing, key, prompt, length, context, chunk):
    t, place = len(prompt), _begin(model, prompt, context)
    while length is None or t < length:
        size = chunk if length is None else min(chunk, length - t)
        room = _find_room(model, t + size)
        place, x, log_probs = _continue(model, drawing, key, place, size=size, room=room)
        ends = np.flatnonzero([] if drawing.stop is None else x == drawing.stop)
        kept = ends[0] + 1 if len(ends) else size
        yield np.asarray(x[:kept]), float(log_probs[:kept].sum())
        if len(ends):
            return
        t += size


def _find_room(model, size):
    """Return the size of a cache for `size` tokens: the end of the segment that they reach."""
    return min((end for end in model.conditioner.segments() if end >= size), default=size)


@jax.jit
@placed
def _begin(model, prompt, context):
    """Return the place after a prompt."""
    with use_float32_products():
        prompt = _codes(model, prompt)
        place = model.conditioner.begin(context, prompt.dtype)
        return model.conditioner.read(prompt, place)[1] if len(prompt) else place


@partial(jax.jit, static_argnames=("size", "room"))
@placed
def _continue(model, drawing, key, place, *, size, room):
    """Draw the next `size` tokens, with caches for `room` tokens."""
    with use_float32_products():
        net, emit = model.conditioner, _make_emit(model, drawing, key)
        x, given = jnp.zeros((size, *model.event_shape[1:]), int), jnp.zeros(size, bool)
        inputs = x, given, _split(key, place.t + jnp.arange(size))
        place = place.resized(net, room)
        place, (_, (x, log_probs)) = run_steps(net.step, place, emit, inputs)
        return place, x, log_probs


def beam_search(
    model: Any,
    prompt: jax.Array | None,
    length: int | None,
    context: jax.Array | None,
    width: int,
    length_penalty: float,
    stop: int | None,
) -> tuple[jax.Array, jax.Array]:
    """Return probable tokens after a prompt, see `AutoregressiveModel.beam_search`."""
    check_size("width", width)
    check_number("length_penalty", length_penalty)
    model = _lengthen(model, length)
    check_symbols(model)
    check_stop(model, stop)
    shared = jnp.asarray(length_penalty, float), None if stop is None else jnp.asarray(stop)
    events = _extend(check_prompt(model, prompt), model.event_shape)
    return call(_beam_of(width), model, events, context, shared)


def check_prompt(model: Any, prompt: Any) -> jax.Array:
    """Return a prompt `(..., n, *token)` as an array, of no tokens if it is `None`.

    Raises:
        ValueError: for another shape, more tokens than the model has, values that it does not have,
            or a model with an order.
    """
    length, *token = model.event_shape
    x = jnp.zeros((0, *token), int) if prompt is None else to_device("prompt", prompt)
    axis = x.ndim - 1 - len(token)
    if axis < 0 or x.shape[axis] > length or x.shape[axis + 1 :] != tuple(token):
        raise ValueError(
            f"Expected a prompt (..., n{''.join(f', {n}' for n in token)}) with n <= {length}, got "
            f"shape {x.shape}."
        )
    if model.order is not None:
        raise ValueError(f"Expected a model without an order, got order={model.order}.")
    check_values(model.conditional, x)
    return x


def _extend(x: jax.Array, event_shape: Shape) -> tuple[jax.Array, jax.Array]:
    """Return events that begin with the prompt `(..., n, *token)`, and which tokens it sets."""
    length, *token = event_shape
    axis = x.ndim - len(event_shape)
    n = x.shape[axis]
    widths = [(0, length - n if i == axis else 0) for i in range(x.ndim)]
    given = (jnp.arange(length) < n).reshape(-1, *(1 for _ in token))
    return jnp.pad(x, widths), jnp.broadcast_to(given, event_shape)


@per_event
def _generate(model, item, context, drawing):
    prompt, key = item
    net, (length, *_), n = model.conditioner, model.event_shape, len(prompt)
    x, given = _extend(prompt, model.event_shape)
    given = given.reshape(length, -1)[:, 0]
    emit = _make_emit(model, drawing, key)
    inputs = x, given, _split(key, jnp.arange(length))
    if 0 < n < length and type(net).decode is Conditioner.decode:
        rest = jax.tree.map(lambda leaf: leaf[n:], inputs)
        _, (drawn, log_probs) = net.decode_after(_codes(model, prompt), emit, rest, context)
        x = jnp.concatenate([prompt.astype(drawn.dtype), drawn])
        log_probs = jnp.concatenate([jnp.zeros(n, log_probs.dtype), log_probs])
    else:
        _, (x, log_probs) = net.decode(emit, inputs, context)
    if drawing.stop is None:
        return x, log_probs.sum()
    ends = (x == drawing.stop) & ~given
    over = jnp.cumsum(ends) > ends  # a token before this one has ended the row
    return jnp.where(over, drawing.stop, x), jnp.where(over, 0, log_probs).sum()


def _codes(model: Any, prompt: jax.Array) -> jax.Array:
    """Return the codes of a prompt for the conditioner, as floats."""
    found = codes(model.conditional, prompt)
    return found.astype(found.dtype if jnp.issubdtype(prompt.dtype, jnp.floating) else float)


def _make_emit(model: Any, drawing: Drawing, key: jax.Array) -> Partial:
    impl = jax.random.key_impl(key)
    return Partial(partial(_emit, impl), as_pytree(model.conditional), drawing)


def _split(key: jax.Array, places: jax.Array) -> jax.Array:
    """Return the raw keys of the tokens at some places, which do not depend on the length."""
    return jax.random.key_data(jax.vmap(partial(jax.random.fold_in, key))(places))


def _emit(impl, conditional, drawing, inputs, params):
    """Return the code of one token, the token, and its log-probability, 0 for a given token."""
    x, given, key = inputs
    conditional, key = conditional(), jax.random.wrap_key_data(key, impl=impl)
    if conditional.num_values is None:
        drawn = conditional.sample(key, params, drawing.temperature)
        x = jnp.where(given, x.astype(drawn.dtype), drawn)
        log_prob = conditional.log_prob(x, params)
    else:
        log_probs = conditional.log_probs(params)
        drawn = jax.random.categorical(key, keep_top(log_probs, *drawing[:3]))
        x = jnp.where(given, x.astype(drawn.dtype), drawn)
        log_prob = log_probs[x]
    return conditional.encode(x).astype(params.dtype), (x, jnp.where(given, 0, log_prob))


def keep_top(
    log_probs: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array | None = None,
    top_p: jax.Array | None = None,
) -> jax.Array:
    """Return tempered logits `(K,)`, with minus infinity for values that are not to be drawn.

    The logits are first divided by the temperature. `top_k` keeps the `k` most probable values.
    `top_p` keeps the most probable values, down to the value at which their sum reaches `p`
    (Holtzman et al. 2020, arXiv:1904.09751).
    """
    logits = jax.nn.log_softmax(log_probs / temperature)
    order = jnp.argsort(-logits)
    rank = jnp.argsort(order)
    kept = jnp.ones(logits.shape, bool)
    if top_k is not None:
        kept &= rank < top_k
    if top_p is not None:
        p = jnp.exp(jnp.where(kept, logits, -jnp.inf))
        p = p / p.sum()
        before = jnp.cumsum(p[order]) - p[order]
        kept &= (before < top_p)[rank]
    return jnp.where(kept, logits, -jnp.inf)


@lru_cache
def _beam_of(width: int):
    """Return the compiled beam search of a width, which is the shape of its arrays."""
    return per_event(partial(_search_model, width))


def _search_model(width, model, item, context, penalty, stop):
    """Return the beams `(W, T)` of one event and their log-probabilities `(W,)`, the best first."""
    x, given = map(model._sort, item)
    given = given.reshape(len(x), -1)[:, 0]
    net = model.conditioner
    beams = Beams(net.step, net.begin(context), model.conditional, width)
    events, scores = search(beams, x, given, penalty, stop)
    return jax.vmap(model._unsort)(events), scores


class Beams(NamedTuple):
    """The steps, the place before the first token, the conditional and the width of a search."""

    step: Callable
    place: Place
    conditional: Any
    width: int


def search(
    beams: Beams,
    x: jax.Array,
    given: jax.Array,
    penalty: jax.Array | float = 0.0,
    stop: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return the beams `(W, T)` of one event and their log-probabilities `(W,)`, the best first.

    Args:
        beams: the steps of the model and the width.
        x: the event `(T,)`, in the order of the steps.
        given: which tokens of `x` are set `(T,)`.
        penalty: the exponent of the length penalty.
        stop: the symbol that ends a beam.
    """
    width, conditional = beams.width, beams.conditional
    values = jnp.arange(conditional.num_values)
    x = x.astype(int)  # bytes have no room for -1

    def step(state, scanned):
        scores, sizes, over, x_prev, caches = state
        t, x_t, given_t = scanned
        params, caches = jax.vmap(beams.step, (0, None, 0))(x_prev, t, caches)
        log_probs = jax.vmap(conditional.log_probs)(params)  # (W, K)
        only = jnp.where(given_t, x_t, -1 if stop is None else stop)
        forced = jnp.where(values == only, 0, -jnp.inf)
        log_probs = jnp.where((given_t | over)[:, None], forced[None], log_probs)
        scores, best = jax.lax.top_k((scores[:, None] + log_probs).reshape(-1), width)
        parents, tokens = best // len(values), best % len(values)
        caches = jax.tree.map(lambda leaf: leaf[parents], caches)
        over, sizes = over[parents], sizes[parents]
        sizes = sizes + ~(over | given_t)
        over |= (tokens == only) & ~given_t
        code = jax.vmap(conditional.encode)(tokens).astype(x_prev.dtype)
        return (scores, sizes, over, code, caches), (parents, tokens)

    def repeat(leaf):
        return jnp.broadcast_to(leaf, (width, *jnp.shape(leaf)))

    codes, caches = jax.tree.map(repeat, (beams.place.x_prev, beams.place.cache))
    scores = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)
    state = scores, jnp.zeros(width, int), jnp.zeros(width, bool), codes, caches
    state, (parents, tokens) = jax.lax.scan(step, state, (jnp.arange(len(x)), x, given))

    def trace(beam, scanned):
        parents_t, tokens_t = scanned
        return parents_t[beam], tokens_t[beam]

    scores, sizes, *_ = state
    ranked = jnp.argsort(-scores / ((5 + sizes) / 6) ** penalty)
    _, found = jax.lax.scan(
        trace, ranked.astype(parents.dtype), (parents, tokens), reverse=True
    )  # (T, W)
    return found.T, scores[ranked]


def complete_by_beam(
    model: Any, x: jax.Array, observed: jax.Array, context: jax.Array | None, width: int
) -> jax.Array:
    """Return the most probable completion that a beam search of `width` finds."""
    check_size("width", width)
    check_symbols(model)
    shared = jnp.zeros(()), None
    events, _ = call(_beam_of(width), model, (x, observed), context, shared)
    return events[..., 0, :]


def _lengthen(model: Any, length: int | None) -> Any:
    """Return the model for events of `length` tokens, if a length is given."""
    return model.with_length(model.event_shape[0] if length is None else length)


def check_stop(model: Any, stop: int | None) -> None:
    """Raise `ValueError` if `stop` is given and no symbol of the model."""
    num = model.conditional.num_values
    if stop is not None and stop not in range(num):
        raise ValueError(f"Expected a symbol from 0 to {num - 1} as stop, got {stop}.")


def check_symbols(model: Any) -> None:
    """Raise `ValueError` for a model that is not over symbols."""
    if model.conditional.num_values is None:
        raise ValueError(f"Expected a model over symbols, got {model.conditional}.")
