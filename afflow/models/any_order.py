"""A density model over an order-agnostic network: any order, any subset, ensembles."""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer

from afflow._tools.arguments import check_positive
from afflow._tools.arrays import to_device
from afflow._tools.calls import call, check_booleans, check_ending, make_typed, per_event
from afflow._tools.modules import copy_module
from afflow._tools.numerics import log_mean_exp
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_permutation, check_size
from afflow.core.conditional import Conditional, check_values
from afflow.core.order_agnostic import Draw, OrderAgnostic, undo_order
from afflow.models.emission import check_fit, codes, emit_and_keys, heat
from afflow.models.generation import Beams, check_symbols, search

_SORTED, _LEAST_CIRCLES = 4096, 8  # numbers to sort for a minibatch; on a CPU a millisecond


class OrderAgnosticModel(Outlined, nnx.Module):
    r"""An ensemble of `M` orders of one network: the equal mixture of `M` densities.

    $$p(x) = \frac1M \sum_{m=1}^M \prod_t p\big(x_{o_t} \mid x_{o_{<t}};\, o = o^{(m)}\big).$$

    `fit` trains the model like any other, on random orders (`DeepNADE` adds random splits of each
    order). The members of the ensemble are drawn from a fixed seed. Every call therefore evaluates
    the same density.

    Args:
        network: an order-agnostic network, which computes the parameters of the conditionals for
            any order.
        conditional: a scalar distribution with as many parameters as the network computes per
            coordinate.
        num_orders: the number of members `M`.
        natural: give every member the natural order. The members then differ only in the network's
            other random draws, such as masks.
        members_only: train on the `M` members only, not on a new draw at each step.
        learning_rate: the default of `fit` for this model.

    Raises:
        ValueError: if the network and the conditional do not fit together, if `num_orders < 1`, or
            if the network learns from random orders only and `natural` or `members_only` is set.
            `marginal_log_prob`, `complete` and `check_missing` raise it if `natural` or
            `members_only` leaves the orders that they need untrained.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> net = afflow.conditioners.DeepNADE(3, 1, (8,), rngs=nnx.Rngs(0))
        >>> model = afflow.OrderAgnosticModel(net, afflow.conditionals.Bernoulli(), num_orders=4)
        >>> x = jnp.array([0, 1, 1])
        >>> round(model.log_prob(x).item(), 4)
        -2.0794
        >>> round(model.marginal_log_prob(x, jnp.array([True, False, True])).item(), 4)
        -1.3863
    """

    ABSENT = {"learning_rate": 1e-3}  # in archives from before it could be chosen

    def __init__(
        self,
        network: OrderAgnostic,
        conditional: Conditional,
        num_orders: int = 1,
        *,
        natural: bool = False,
        members_only: bool = False,
        learning_rate: float = 1e-3,
    ):
        check_fit(network, conditional)
        check_positive(learning_rate=learning_rate)
        check_size("num_orders", num_orders)
        if network.needs_random_orders and (natural or members_only):
            raise ValueError(
                f"Expected a network that trains on a given order with natural=True or "
                f"members_only=True, got {type(network).__name__}, whose training estimate is "
                f"unbiased over random orders only: use AgnosticMADE."
            )
        self.network = network
        self.conditional = conditional
        self.num_orders = num_orders
        self.natural = natural
        self.members_only = members_only
        self.learning_rate = learning_rate
        self.event_shape = network.event_shape[:1]
        self.context_shape = network.context_shape

    def with_orders(self, num_orders: int) -> Self:
        """Return an ensemble of `num_orders` members over the same network."""
        check_size("num_orders", num_orders)
        return copy_module(self, num_orders=num_orders)

    def log_prob(
        self, x: jax.Array, context: jax.Array | None = None, *, chunk: int | None = None
    ) -> jax.Array:
        """Return the log-probability, or log-density, of `x` `(..., D)`: `(...)` in nats.

        With `chunk`, the events are computed in parts of `chunk` events, to save memory.
        """
        return call(_log_prob, self, self._events(x), context, chunk=chunk)

    def marginal_log_prob(
        self, x: jax.Array, subset: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-probability of the coordinates in `subset`, the rest summed out.

        Each member moves the coordinates of the subset to the front of its order. The marginal is
        then exact for the new order and costs one density. A network need not give the same density
        in two orders. The marginal therefore belongs to the ensemble of the reordered members, not
        to `log_prob`.

        Args:
            x: `(..., D)`; values outside the subset are ignored.
            subset: booleans `(..., D)`.
            context: `(..., *context_shape)`.

        Raises:
            ValueError: for a subset whose orders the model has not been trained on.
        """
        subset = check_booleans("subset", subset)
        self._check_trained(subset)
        return call(_compute_marginal, self, self._events(x, subset), context)

    def log_conditionals(
        self, x: jax.Array, order: Sequence[int] | jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-probability of each coordinate given the coordinates before it in `order`.

        Coordinate `i` of the result `(..., D)` belongs to coordinate `i` of `x`. The order `(D,)`
        is any permutation. The network's other random draws, such as masks, are those of the first
        member.

        Raises:
            ValueError: if `order` is not a permutation of the coordinates.
        """
        order = check_permutation("order", order, *self.event_shape)
        return call(_compute_in_order, self, self._events(x), context, (jnp.array(order),))

    def training_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return an estimate of the log-probability averaged over orders, for `fit`."""
        together, key = jax.random.split(make_typed(key))
        return call(_estimate, self, self._events(x), context, (together,), key=key)

    def without_noise(self) -> Self:
        """Return the model that drops no hidden units in training, for validation."""
        return copy_module(self, network=self.network.without_noise())

    def check_missing(self, x: np.ndarray) -> None:
        """Raise `ValueError` unless the model can train on rows `x` with missing values (NaN)."""
        self._check_trained(~np.isnan(x))
        if self.network.draws_per_batch:
            raise ValueError(
                "Expected a model that draws an order for each row, to train on rows with missing "
                "values: afflow.zoo.deep_nade or afflow.zoo.eonade."
            )

    def observed_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Estimate the log-marginal of the coordinates of `x` `(..., D)` that are not NaN.

        Raises:
            ValueError: outside of compiled functions, as `check_missing`.
        """
        together, key = jax.random.split(make_typed(key))
        (x,) = self._events(x)
        if not isinstance(x, Tracer):
            self.check_missing(np.asarray(x))
        return call(_estimate_observed, self, (x,), context, (together,), key=key)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        temperature: float = 1.0,
        chunk: int | None = None,
    ) -> jax.Array:
        """Draw samples `(*shape, *context_batch, D)`, each from a member drawn at random.

        Samples are exact at temperature 1. A `temperature` below 1 sharpens every conditional;
        above 1 flattens it. With `chunk`, the samples are drawn in parts of that size, to save
        memory.
        """
        options = {"key": key, "shape": shape, "chunk": chunk}
        return call(_sample, self, (), context, heat(temperature), **options)

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
        r"""Draw the coordinates of `x` `(..., D)` that are not `observed`, given the observed ones.

        Any subset can be observed. Each member moves the observed coordinates to the front of its
        order. A member $m$ is drawn with its posterior probability given the observed coordinates
        $x_S$, $p_m(x_S) / \sum_j p_j(x_S)$. The member then draws the remaining coordinates from
        its conditionals. The completion is therefore the exact conditional of the ensemble of
        reordered members, the ensemble of `marginal_log_prob`. It is also the exact conditional of
        `log_prob` if every member's order already begins with the observed coordinates. The cost is
        `num_orders` densities and one decoding step per coordinate.

        Args:
            x: events; values that are not observed are ignored.
            observed: booleans `(..., D)`.
            key: a PRNG key. Without a key, every coordinate is the mode of its conditional, in the
                order of the first member.
            context: `(..., *context_shape)`.
            temperature: as in `sample`. The probabilities of the members do not depend on it.
            width: return the most probable completion that a beam search of this width finds in the
                order of the first member, instead of a draw; for symbols only.

        Raises:
            ValueError: for a subset whose orders the model has not been trained on, or for observed
                values that are not whole numbers if the conditional is discrete.
        """
        observed = check_booleans("observed", observed)
        self._check_trained(observed)
        events = self._events(x, observed)
        check_values(self.conditional, *events)
        if width is not None:
            check_size("width", width)
            check_symbols(self)
            return call(_search_of(width), self, events, context)
        return call(_fill, self, events, context, heat(temperature), key=key)

    def _check_trained(self, subset):
        """Raise `ValueError` if the model has not trained on orders that begin with `subset`."""
        if not (self.natural or self.members_only):
            return
        mask = np.asarray(subset, bool)
        before, after = mask[..., :-1], mask[..., 1:]
        if (after & ~before if self.natural else after ^ before).any():
            raise ValueError(
                "Expected a model that trains on all orders, got one with natural=True or "
                "members_only=True: it has not learned orders that begin with this subset. Use "
                "`deep_nade`, or `made_ensemble(endless=True)`."
            )

    def _events(self, *events):
        return tuple(check_ending("x", to_device("x", event), self.event_shape) for event in events)

    def _member(self, number) -> Draw:
        """Return the draw (order and key) of member `number` of the ensemble."""
        return self._draw(jax.random.fold_in(jax.random.key(0), number))

    def _draw(self, key) -> Draw:
        (dim,), (order_key, key) = self.event_shape, jax.random.split(key)
        order = jnp.arange(dim) if self.natural else jax.random.permutation(order_key, dim)
        return Draw(order, key)

    def _training_draw(self, together, key) -> Draw:
        """Return the draw of a row, from a key of the minibatch and a key of the row.

        Rows with separate draws share circular orders. A row starts at a random place of a random
        circle, so its order is uniform over all orders. A sort for each row would take two thirds
        of a training step of `DeepNADE` on a CPU.
        """
        key = together if self.network.draws_per_batch else key
        if self.members_only:
            return self._member(jax.random.randint(key, (), 0, self.num_orders))
        if self.natural or self.network.draws_per_batch:
            return self._draw(key)
        (dim,) = self.event_shape
        keys = jax.random.split(together, max(_SORTED // dim, _LEAST_CIRCLES))
        circles = jax.vmap(lambda key: jax.random.permutation(key, dim))(keys)
        circle_key, start_key, key = jax.random.split(key, 3)
        circle = circles[jax.random.randint(circle_key, (), 0, len(circles))]
        return Draw(jnp.roll(circle, jax.random.randint(start_key, (), 0, dim)), key)

    def _log_conditionals(self, x, draw, context):
        """Return the terms of the chain rule `(D,)`, in the order of `draw`."""
        x = x[draw.order]
        params = self.network.in_order(self._codes(x), draw, context)
        return jax.vmap(self.conditional.log_prob)(x, params)

    def _codes(self, x):
        return codes(self.conditional, x)


@per_event
def _log_prob(model, item, context):
    return _mix(model, lambda draw: model._log_conditionals(*item, draw, context).sum())


@per_event
def _compute_marginal(model, item, context):
    x, subset = item
    return _mix(model, lambda draw: _compute_observed_log_prob(model, x, subset, draw, context))


def _compute_observed_log_prob(model, x, subset, draw, context):
    """Return the log-probability of a subset of `x` under one member, moved to the front."""
    draw = _move_to_front(subset, draw)
    terms = model._log_conditionals(jnp.where(subset, x, 0), draw, context)
    return jnp.where(subset[draw.order], terms, 0).sum()


def _mix(model, log_prob):
    """Return the log of the mean probability over the members, from `log_prob(draw)` of each."""
    return log_mean_exp(_map_members(model, log_prob))


def _map_members(model, log_prob):
    """Return `log_prob(draw)` for the draw of every member, `(M,)`."""
    return jax.lax.map(lambda m: log_prob(model._member(m)), jnp.arange(model.num_orders))


@per_event
def _compute_in_order(model, item, context, order):
    draw = model._member(0)._replace(order=order)
    return undo_order(model._log_conditionals(*item, draw, context), order)


@per_event
def _estimate(model, item, context, together):
    x, key = item
    draw_key, key = jax.random.split(key)
    draw = model._training_draw(together, draw_key)
    x = x[draw.order]
    params, weights = model.network.estimate(key, model._codes(x), draw, context)
    terms = jax.vmap(model.conditional.log_prob)(x, params)
    return jnp.where(weights > 0, weights * terms, 0).sum()


@per_event
def _estimate_observed(model, item, context, together):
    """Estimate as `_estimate` does, in an order that begins with the observed coordinates."""
    x, key = item
    draw_key, key = jax.random.split(key)
    observed = ~jnp.isnan(x)
    draw = _move_to_front(observed, model._training_draw(together, draw_key))
    x = jnp.where(observed, x, 0)[draw.order]
    params, weights = model.network.estimate(key, model._codes(x), draw, context)
    terms = jax.vmap(model.conditional.log_prob)(x, params)
    later = weights > 0  # places after the cut; the observed terms among these are scaled up
    used = later & observed[draw.order]
    if model.network.needs_random_orders:
        weights *= (later.sum() / jnp.maximum(used.sum(), 1)).astype(weights.dtype)
    return jnp.where(used, weights * terms, 0).sum()


@per_event
def _sample(model, item, context, temperature):
    member_key, key = jax.random.split(item[0])
    draw = model._member(jax.random.randint(member_key, (), 0, model.num_orders))
    x, observed = jnp.zeros(model.event_shape), jnp.zeros(model.event_shape, bool)
    return _decode(model, x, observed, draw, context, temperature, key)


@per_event
def _fill(model, item, context, temperature):
    """Draw the coordinates that are not observed, or take their modes if there is no key."""
    x, observed, *keys = item
    if not keys:
        return _decode(model, x, observed, model._member(0), context, temperature)
    member_key, key = jax.random.split(keys[0])
    member = 0
    if model.num_orders > 1:
        logits = _map_members(
            model, lambda draw: _compute_observed_log_prob(model, x, observed, draw, context)
        )
        member = jax.random.categorical(member_key, logits)
    return _decode(model, x, observed, model._member(member), context, temperature, key)


@lru_cache
def _search_of(width: int):
    """Return the compiled search for a completion, of a width, which is the shape of its arrays."""
    return per_event(partial(_search, width))


def _search(width, model, item, context):
    """Return the most probable completion that a beam search finds."""
    x, observed = item
    draw = _move_to_front(observed, model._member(0))
    net = model.network
    beams = Beams(net.step, net.begin(draw, context), model.conditional, width)
    events, _ = search(beams, x[draw.order], observed[draw.order].astype(bool))
    return undo_order(events[0], draw.order)


def _decode(model, x, observed, draw, context, temperature, *key):
    """Decode one event `(D,)` along the order of `draw`, the observed coordinates first."""
    draw = _move_to_front(observed, draw)
    emit, *keys = emit_and_keys(model.conditional, temperature, len(x), *key)
    inputs = x[draw.order], observed[draw.order], *keys
    _, x = model.network.decode(emit, inputs, draw, context)
    return undo_order(x, draw.order)


def _move_to_front(subset, draw):
    """Move the coordinates of `subset` `(D,)` to the front of the order of `draw`."""
    chosen = subset[draw.order]
    first, last = jnp.cumsum(chosen), chosen.sum() + jnp.cumsum(~chosen)
    return draw._replace(order=undo_order(draw.order, jnp.where(chosen, first, last) - 1))
