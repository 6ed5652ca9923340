"""PixelDefend: the p-value of an event, and the most probable event near an event."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from afflow._tools.arguments import check_instance, check_number
from afflow._tools.arrays import to_device
from afflow._tools.calls import call, check_ending, per_event
from afflow._tools.numerics import widen
from afflow.conditionals import ChannelLogistics
from afflow.core.conditional import check_values
from afflow.models.autoregressive import AutoregressiveModel, decode_with
from afflow.models.emission import as_pytree
from afflow.models.reshaped import Reshaped
from afflow.models.token_model import TokenModel


def purify(
    model: AutoregressiveModel | Reshaped,
    x: jax.Array,
    radius: float | jax.Array,
    context: jax.Array | None = None,
) -> jax.Array:
    r"""Move each value of `x` to the most probable value within a radius, one after another.

    $$z_t = \operatorname{arg\,max}_{|v - x_t| \le r} p(v \mid z_{<t}).$$

    The values are visited in the order of the model. Each is chosen given the values that were
    chosen before it, in one decoding loop. The radius 0 returns `x`. A radius of all levels returns
    `model.greedy()`, but not with `ChannelLogistics`, whose `mode` compares one pixel of each
    component. The events of a batch are purified at once. Song et al. 2018, arXiv:1710.10766,
    algorithm 1.

    Args:
        model: a model of discrete values. Its tokens are scalars, or have a `TokenModel` or
            `ChannelLogistics`.
        x: events `(..., *event_shape)`, such as images that an adversary has changed.
        radius: the largest change $r$ of a value, in levels.
        context: `(..., *context_shape)`; broadcasts with the events.

    Returns:
        Integers `(..., *event_shape)`.

    Raises:
        ValueError: for a negative radius, another kind of model, or values of `x` that are not
            among the values of the model.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> levels = afflow.conditionals.DiscretizedLogistics(num_levels=8)
        >>> model = afflow.AutoregressiveModel(
        ...     afflow.MADE(3, levels.num_params, rngs=nnx.Rngs(0)), levels
        ... )
        >>> afflow.inference.purify(model, jnp.array([0, 3, 7]), 2).tolist()
        [0, 3, 7]
    """
    check_number("radius", radius, lambda number: number >= 0, ">= 0")
    if isinstance(model, Reshaped):
        x = check_ending("x", to_device("x", x), model.event_shape)
        tokens = x.reshape(_replace_end(x, model, model.model))
        z = purify(model.model, tokens, radius, context)
        return z.reshape(_replace_end(z, model.model, model))
    check_instance("model", model, AutoregressiveModel)
    x = check_ending("x", to_device("x", x), model.event_shape)
    _check_values(model.conditional, x)
    return call(_purify, model, (x,), context, (jnp.asarray(radius, float),))


def find_p_value(log_prob: jax.Array, reference: jax.Array) -> jax.Array:
    r"""Return the p-value of an event: the rank of its log-probability among reference events.

    $$\frac{1}{N + 1} \Big(1 + \sum_{i=1}^N \big[\log p(x_i) \le \log p(x)\big]\Big).$$

    The p-value is small for an event that is less probable than most reference events. It is
    uniform on $1/(N+1), \dots, 1$ if the event and the reference events are exchangeable and have
    no ties; with ties it is larger. Song et al. 2018, arXiv:1710.10766, section 3.2.

    Args:
        log_prob: log-probabilities of events `(...)`.
        reference: log-probabilities of reference events `(N,)`, such as training events.

    Returns:
        The p-values `(...)`. They are NaN for a log-probability that is NaN, and for a reference
        with NaN.

    Raises:
        ValueError: for a reference that is empty or has several axes.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> reference = jnp.array([-3.0, -1.0, -2.0])
        >>> afflow.inference.find_p_value(jnp.array([-9.0, -2.0, 0.0]), reference).tolist()
        [0.25, 0.75, 1.0]
    """
    log_prob, reference = jnp.asarray(log_prob), jnp.asarray(reference)
    if reference.ndim != 1 or not reference.size:
        raise ValueError(f"Expected reference.shape (N,), N at least 1, got {reference.shape}.")
    return _rank(widen(log_prob), widen(reference))


@jax.jit
def _rank(log_prob, reference):
    not_above = jnp.searchsorted(jnp.sort(reference), log_prob, side="right")
    p = (1 + not_above.astype(log_prob.dtype)) / (len(reference) + 1)
    return jnp.where(jnp.isnan(log_prob) | jnp.isnan(reference).any(), jnp.nan, p)


@per_event
def _purify(model, item, context, radius):
    (x,) = item
    return _purify_tokens(model, x, radius, context)


def _purify_tokens(model, x, radius, context):
    """Purify one event `(T, *token)`, or the values of one token."""
    emit = Partial(_emit_purified, as_pytree(model.conditional), radius)
    return decode_with(model, emit, context, x)


def _emit_purified(conditional, radius, inputs, params):
    """Return the code and the value of one purified token."""
    (x,), conditional = inputs, conditional()
    z = _find_mode_near(conditional, x, radius, params)
    return conditional.encode(z).astype(params.dtype), z


def _find_mode_near(conditional, x, radius, params):
    """Return the most probable token within the radius, by its values in turn if it has several."""
    if isinstance(conditional, TokenModel):
        return _purify_tokens(conditional.model, x, radius, params)
    return conditional.mode_near(x, radius, params)


def _check_values(conditional: Any, x: jax.Array) -> None:
    """Raise `ValueError` unless the values of `x` are among the values of the conditional."""
    while isinstance(conditional, TokenModel):
        conditional = conditional.model.conditional
    is_pixel = isinstance(conditional, ChannelLogistics)
    num = conditional.num_levels if is_pixel else conditional.num_values
    if num is None:
        raise ValueError(
            f"Expected a model whose tokens are discrete scalars, or have a TokenModel or "
            f"ChannelLogistics, got {conditional}."
        )
    check_values(conditional, x)


def _replace_end(x, old, new):
    """Return the shape of events of the model `old` as events of the model `new`."""
    return (*x.shape[: x.ndim - len(old.event_shape)], *new.event_shape)
