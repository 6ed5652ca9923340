"""Decoding of a density model: what each step emits, and the checks of its arguments."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial

from afflow._tools.arguments import check_instance
from afflow.core.conditional import Conditional, without_infinities
from afflow.core.conditioner import Conditioner
from afflow.core.order_agnostic import OrderAgnostic


def codes(conditional: Conditional, x: jax.Array) -> jax.Array:
    """Encode the coordinates `x` `(D,)` for a conditioner.

    An infinite coordinate has density zero. Its code is the code of 0. The later conditionals then
    stay finite, and the sum of all terms is minus infinity, not NaN.
    """
    return jax.vmap(conditional.encode)(without_infinities(x))


def as_pytree(conditional: Conditional) -> Partial:
    """Return a function without arguments that returns the conditional, as a pytree.

    A conditional with weights is a module. Compiled loops take its weights as arguments.
    """
    if isinstance(conditional, nnx.Module):
        return Partial(_identity, conditional)
    return Partial(partial(_identity, conditional))


def _identity(value):
    return value


def check_fit(conditioner: Conditioner | OrderAgnostic, conditional: Conditional):
    """Raise `ValueError` unless both arguments are parts of a model, with sizes that agree.

    The sizes are `num_params` and `features`.
    """
    check_instance("conditioner", conditioner, (Conditioner, OrderAgnostic))
    check_instance("conditional", conditional, Conditional)
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


def emit_and_keys(
    conditional: Conditional, temperature: jax.Array, num: int, *key: jax.Array
) -> tuple[Any, ...]:
    """Return the function that emits one coordinate, followed by the raw keys of `num` coordinates.

    The keys are raw because decoding needs inputs that are arrays of numbers. Without a key, the
    tuple holds the function only.
    """
    impl = jax.random.key_impl(*key) if key else None
    emit = Partial(partial(_emit_token, impl), as_pytree(conditional), temperature)
    return emit, *(jax.random.key_data(jax.random.split(k, num)) for k in key)


def _emit_token(impl, conditional, temperature, inputs, params):
    """Return the code and the value of one token.

    The value is `x` if the coordinate is observed, a draw if `inputs` holds a key, else the mode.
    """
    x, observed, *key = inputs
    conditional = conditional()
    if key:
        key = jax.random.wrap_key_data(*key, impl=impl)
        drawn = conditional.sample(key, params, temperature)
    else:
        drawn = conditional.mode(params)
    x = jnp.where(observed, x.astype(drawn.dtype), drawn)
    return conditional.encode(x).astype(params.dtype), x


def check_temperature(temperature: float) -> None:
    """Raise `ValueError` if a temperature is not positive."""
    if not temperature > 0:
        raise ValueError(
            f"Expected temperature > 0, got {temperature}: for the limit 0 there is `greedy`."
        )


def heat(temperature: float) -> tuple[jax.Array]:
    """Return a one-element tuple of the temperature as an array, the shared argument of `call`.

    Raises:
        ValueError: if the temperature is not positive.
    """
    check_temperature(temperature)
    return (jnp.asarray(temperature, float),)
