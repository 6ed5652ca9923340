"""An autoregressive density model: the chain rule with a conditioner and a scalar distribution."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.tree_util import Partial

from afflow._tools.arrays import real_array
from afflow._tools.calls import call, check_ending, per_event
from afflow._tools.outline import Outlined
from afflow._tools.shapes import Shape, check_permutation
from afflow.core.conditional import Conditional
from afflow.core.conditioner import Conditioner
from afflow.core.order_agnostic import OrderAgnostic


class AutoregressiveModel(Outlined, nnx.Module):
    r"""A density by the chain rule, each coordinate conditional on the earlier coordinates.

    $$\log p(x \mid h) = \sum_t \log p(x_t;\, c_t(x_{<t}, h)).$$

    A density takes one pass of the conditioner. Sampling runs the conditioner's serial loop. Both
    are exact. The methods take any leading batch axes and are compiled, as in `Flow`.

    Args:
        conditioner: maps `(D,)` to `(D, P)`; row `t` depends on `x[:t]` and the context only. For a
            conditional that encodes a value as `features` numbers, it maps `(D, features)` to
            `(D, P)`.
        conditional: a scalar distribution with `P` parameters.
        order: the coordinates in the order of the chain rule, by default the natural one.
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

    def __init__(
        self,
        conditioner: Conditioner,
        conditional: Conditional,
        order: Sequence[int] | None = None,
        *,
        learning_rate: float = 1e-3,
    ):
        check_fit(conditioner, conditional)
        (dim, *_) = conditioner.event_shape
        self.conditioner = conditioner
        self.conditional = conditional
        self.order = None if order is None else check_permutation("order", order, dim)
        self.learning_rate = learning_rate
        self.event_shape = (dim,)
        self.context_shape = conditioner.context_shape

    def log_prob(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        """Return the log-probability, or log-density, of `x` `(..., D)`: `(...)` in nats."""
        return self.log_conditionals(x, context).sum(-1)

    def log_conditionals(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        r"""Return $\log p(x_t \mid x_{<t})$ of every coordinate, `(..., D)` in nats.

        Coordinate `t` of the result belongs to coordinate `t` of `x`. The sum over the first `k`
        coordinates of the order is their log-marginal.
        """
        return call(_log_conditionals, self, (self._events(x),), context)

    def check_missing(self, x: np.ndarray) -> None:
        """Raise `ValueError` if a row has an observed coordinate after a missing one in the order.

        Args:
            x: rows `(..., D)`, with NaN for missing values.
        """
        missing = np.isnan(x) if self.order is None else np.isnan(x)[..., self.order]
        bad = np.flatnonzero((missing[..., :-1] & ~missing[..., 1:]).any(-1))
        if bad.size:
            raise ValueError(
                f"Expected missing values at the end of the order, got an observed one after a "
                f"missing one in row {bad[0]}: use an order-agnostic model, say zoo.deep_nade."
            )

    def observed_log_prob(
        self, key: jax.Array, x: jax.Array, context: jax.Array | None = None
    ) -> jax.Array:
        """Return the log-marginal `(...)` of the coordinates of `x` `(..., D)` that are not NaN.

        Args:
            key: not used.
            x: events, with NaN for missing values.
            context: `(..., *context_shape)`.

        Raises:
            ValueError: outside of compiled functions, for an observed coordinate after a missing
                one.
        """
        x = self._events(x)
        if not isinstance(x, Tracer):
            self.check_missing(np.asarray(x))
        observed = ~jnp.isnan(x)
        terms = self.log_conditionals(jnp.where(observed, x, 0), context)
        return jnp.where(observed, terms, 0).sum(-1)

    def sample(
        self,
        key: jax.Array,
        shape: int | Shape = (),
        context: jax.Array | None = None,
        *,
        temperature: float = 1.0,
    ) -> jax.Array:
        """Draw samples `(*shape, *context_batch, D)`, exact at temperature 1.

        A `temperature` below 1 sharpens every conditional; above 1 flattens it.
        """
        return call(_fill, self, self._blank(), context, heat(temperature), key=key, shape=shape)

    def greedy(self, context: jax.Array | None = None) -> jax.Array:
        """Return events `(*context_batch, D)`, each coordinate the mode of its conditional."""
        return call(_fill, self, self._blank(), context, heat(1.0))

    def complete(
        self,
        x: jax.Array,
        observed: jax.Array,
        key: jax.Array | None = None,
        context: jax.Array | None = None,
        *,
        temperature: float = 1.0,
    ) -> jax.Array:
        """Draw the coordinates of `x` `(..., D)` that are not `observed`, given the observed ones.

        The completion is exact. It is therefore refused unless the observed coordinates come first
        in the order. For any other subset use an order-agnostic model such as
        `afflow.zoo.deep_nade`.

        Args:
            x: events; values that are not observed are ignored.
            observed: booleans `(..., D)`.
            key: a PRNG key. Without a key, every coordinate is the mode of its conditional.
            context: `(..., *context_shape)`.
            temperature: as in `sample`.

        Raises:
            ValueError: if an observed coordinate comes after an unobserved one, or an observed
                value is not a whole number although the conditional is discrete.
        """
        mask = np.asarray(observed, bool)
        mask = mask if self.order is None else mask[..., self.order]
        if (mask[..., 1:] & ~mask[..., :-1]).any():
            raise ValueError(
                "Expected observed coordinates to come first in the order, got one after an "
                "unobserved one: its completion is not exact. Give the model another order, "
                "or use an order-agnostic one (afflow.zoo.deep_nade)."
            )
        events = self._events(x), self._events(observed)
        check_whole(self.conditional, *events)
        return call(_fill, self, events, context, heat(temperature), key=key)

    def _events(self, x):
        return check_ending("x", jnp.asarray(real_array("x", x)), self.event_shape)

    def _sort(self, x):
        """Reorder coordinates from the natural order to the order of the chain rule."""
        return x if self.order is None else x[np.array(self.order)]

    def _unsort(self, x):
        """Reorder coordinates from the order of the chain rule to the natural order."""
        return x if self.order is None else x[np.argsort(self.order)]

    def _blank(self):
        """Return an event without observed coordinates."""
        return jnp.zeros(self.event_shape), jnp.zeros(self.event_shape, bool)


@per_event
def _log_conditionals(model, item, context):
    x = model._sort(item[0])
    params = model.conditioner(codes(model.conditional, x), context)
    return model._unsort(jax.vmap(model.conditional.log_prob)(x, params))


@per_event
def _fill(model, item, context, temperature):
    """Draw the coordinates that are not observed, or take their modes if there is no key."""
    x, observed, *key = item
    emit, *keys = emit_and_keys(model.conditional, temperature, len(x), *key)
    inputs = model._sort(x), model._sort(observed), *keys
    _, x = model.conditioner.decode(emit, inputs, context)
    return model._unsort(x)


def codes(conditional: Conditional, x: jax.Array) -> jax.Array:
    """Encode the coordinates `x` `(D,)` for a conditioner.

    An infinite coordinate has density zero. Its code is the code of 0. The later conditionals then
    stay finite, and the sum of all terms is minus infinity, not NaN.
    """
    return jax.vmap(conditional.encode)(jnp.where(jnp.isinf(x), jnp.zeros_like(x), x))


def check_fit(conditioner: Conditioner | OrderAgnostic, conditional: Conditional):
    """Raise `ValueError` if `num_params` or `features` of the two arguments differ."""
    if conditioner.num_params != conditional.num_params:
        raise ValueError(
            f"Expected a conditioner with num_params={conditional.num_params} for "
            f"{conditional}, got {conditioner.num_params}."
        )
    if conditioner.features != conditional.features:
        raise ValueError(
            f"Expected a conditioner with features={conditional.features} for {conditional}, "
            f"got {conditioner.features}."
        )


def check_whole(conditional: Conditional, x: jax.Array, observed: jax.Array) -> None:
    """Raise `ValueError` if the conditional is discrete and an observed value is not whole."""
    if not conditional.is_discrete or any(isinstance(a, Tracer) for a in (x, observed)):
        return
    values, mask = np.broadcast_arrays(x, observed)
    values = values[mask]
    broken = values[values != np.floor(values)]
    if broken.size:
        raise ValueError(
            f"Expected whole numbers in the observed coordinates of a discrete model, got "
            f"{broken[0]}: round the values, or map them to 0, 1, 2, ..."
        )


def emit_and_keys(
    conditional: Conditional, temperature: jax.Array, num: int, *key: jax.Array
) -> tuple[Any, ...]:
    """Return the function that emits one coordinate, followed by the raw keys of `num` coordinates.

    The keys are raw because decoding needs inputs that are arrays of numbers. Without a key, the
    tuple holds the function only.
    """
    impl = jax.random.key_impl(*key) if key else None
    emit = Partial(partial(_emit_coordinate, conditional, impl), temperature)
    return emit, *(jax.random.key_data(jax.random.split(k, num)) for k in key)


def _emit_coordinate(conditional, impl, temperature, inputs, params):
    """Return the code and the value of one coordinate.

    The value is `x` if the coordinate is observed, a draw if `inputs` holds a key, else the mode.
    """
    x, observed, *key = inputs
    if key:
        key = jax.random.wrap_key_data(*key, impl=impl)
        drawn = conditional.sample(key, params, temperature)
    else:
        drawn = conditional.mode(params)
    x = jnp.where(observed, x.astype(drawn.dtype), drawn)
    return conditional.encode(x).astype(params.dtype), x


def heat(temperature: float) -> tuple[jax.Array]:
    """Return a one-element tuple of the temperature as an array, the shared argument of `call`.

    Raises:
        ValueError: if the temperature is not positive.
    """
    if not temperature > 0:
        raise ValueError(
            f"Expected temperature > 0, got {temperature}: for the limit 0 there is `greedy`."
        )
    return (jnp.asarray(temperature, float),)
