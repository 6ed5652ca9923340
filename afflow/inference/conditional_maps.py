"""The conditionals of triangular flows and autoregressive models, read from one parallel pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from afflow.bijectors.autoregressive import MaskedAutoregressive
from afflow.bijectors.compose import Chain, Inverse, Repeat
from afflow.bijectors.elementwise import Elementwise, Standardize
from afflow.conditionals.mixture import MixtureOf
from afflow.core.bijector import Bijector
from afflow.core.distribution import Distribution
from afflow.core.univariate import locate
from afflow.distributions.standard import Normal
from afflow.models.autoregressive import AutoregressiveModel
from afflow.models.emission import codes
from afflow.models.flow import Flow
from afflow.univariates.affine import Affine
from afflow.univariates.mixture_cdf import GaussianCDF, mixture_parameters

TokenMap = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
"""A map of the coordinates of an event, each given the prefix: new values, and log-slopes."""


def run_and_record(
    bijector: Bijector, x: jax.Array, context: jax.Array | None, *, forward: bool
) -> tuple[jax.Array, TokenMap]:
    r"""Run a triangular bijector in its parallel direction; return $y$ and the maps of its tokens.

    Token $t$ of the result is $y_t = g_t(x_t)$, where the prefix $x_{<t}$ decides $g_t$. The
    recorded map applies $g_t$ to any other value of token $t$ and needs no network.

    Args:
        bijector: layers in one order: `MaskedAutoregressive` read from data to noise, its
            `Inverse` read from noise to data, and elementwise maps.
        x: an event `(T, *token)`.
        context: one context, or `None`.
        forward: run `forward` instead of `inverse`.

    Raises:
        ValueError: for a layer that mixes or reorders coordinates, or whose direction is serial.
    """
    if isinstance(bijector, Inverse):
        return run_and_record(bijector.bijector, x, context, forward=not forward)
    if isinstance(bijector, Chain | Repeat):
        chain = bijector.to_chain() if isinstance(bijector, Repeat) else bijector
        return _record_layers(chain.bijectors, x, context, forward=forward)
    if isinstance(bijector, MaskedAutoregressive) and not forward:
        token_map = _bind_parameters(bijector, x, context)
    elif bijector.is_elementwise:
        token_map = _differentiate(bijector.forward if forward else bijector.inverse)
    else:
        raise ValueError(
            f"Expected layers of one order that run in parallel, got {type(bijector).__name__}: "
            f"distil by `reverse_kl` or `sticking_the_landing` instead."
        )
    return token_map(x)[0], token_map


def read_conditionals(
    teacher: Any, x: jax.Array, context: jax.Array | None
) -> Callable[[jax.Array], jax.Array]:
    r"""Return the function from values $v$ `(T, *token)` to $\log p(v_t \mid x_{<t})$ `(T, ...)`.

    The networks of the teacher run once, at `x`.

    Raises:
        ValueError: for a teacher whose conditionals need more than one pass.
    """
    if isinstance(teacher, AutoregressiveModel):
        params = _read_parameters(teacher, x, context)
        return lambda v: jax.vmap(teacher.conditional.log_prob)(v, params)
    _check_flow(teacher)
    _, to_noise = run_and_record(teacher.bijector, x, context, forward=False)

    def find_log_probs(v):
        z, log_slopes = to_noise(v)
        return get_log_probs(teacher.base)(z) + log_slopes

    return find_log_probs


def read_gaussians(
    teacher: Any, x: jax.Array, context: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    r"""Return $\mu_t(x_{<t})$ and $\log\sigma_t(x_{<t})$ of a teacher with normal conditionals.

    Raises:
        ValueError: for a teacher whose conditionals are not normal.
    """
    if isinstance(teacher, AutoregressiveModel):
        conditional = _get_normal(teacher.conditional)
        params = _read_parameters(teacher, x, context)
        _, mu, log_s = jax.vmap(lambda p: mixture_parameters(conditional, p))(params)
        return mu[:, 0], log_s[:, 0]
    _check_flow(teacher)
    check_affine(teacher)
    _, to_noise = run_and_record(teacher.bijector, x, context, forward=False)
    z, log_slopes = to_noise(jnp.zeros_like(x))  # (0 - mu) / sigma, and -log sigma
    return -z * jnp.exp(-log_slopes), -log_slopes


def get_log_probs(base: Distribution) -> Callable[[jax.Array], jax.Array]:
    """Return the function that gives the log-density of each coordinate of the noise.

    Raises:
        ValueError: for a base without such a function.
    """
    if not hasattr(base, "log_probs"):
        raise ValueError(
            f"Expected a base of independent coordinates with a method log_probs, such as Normal, "
            f"got {type(base).__name__}."
        )
    return base.log_probs  # type: ignore[attr-defined]


def check_affine(flow: Flow) -> None:
    """Raise `ValueError` unless the base is normal and every layer affine in each coordinate."""
    if not isinstance(flow.base, Normal):
        raise ValueError(f"Expected a Normal base, got {type(flow.base).__name__}.")
    for _, part in nnx.iter_modules(flow.bijector):
        scalar = isinstance(part, Bijector) and part.event_shape == ()
        curved = scalar and not isinstance(part, Affine)
        other = getattr(part, "is_elementwise", False)
        if curved or (other and not isinstance(part, Elementwise | Standardize)):
            raise ValueError(f"Expected affine layers, got {type(part).__name__}.")


def _record_layers(layers, x, context, *, forward):
    maps = []
    for layer in layers if forward else reversed(layers):
        x, token_map = run_and_record(layer, x, context, forward=forward)
        maps.append(token_map)
    return x, _compose(maps)


def _compose(maps: list[TokenMap]) -> TokenMap:
    def composed(v):
        total = jnp.zeros_like(v)
        for token_map in maps:
            v, log_slopes = token_map(v)
            total += log_slopes
        return v, total

    return composed


def _bind_parameters(layer: MaskedAutoregressive, x, context) -> TokenMap:
    """Return the maps of a layer from data to noise, at the prefixes of `x`."""
    own = None if layer.context_shape is None else context
    params = layer.conditioner(x, own).reshape(*x.shape, -1)  # (T, *token, P)
    to_noise = layer.univariate.inverse_and_log_det
    for _ in x.shape:
        to_noise = jax.vmap(to_noise)
    return lambda v: to_noise(locate(layer.univariate, v), params)


def _differentiate(f: Callable[[jax.Array], jax.Array]) -> TokenMap:
    """Return an elementwise map with its log-slopes."""

    def token_map(v):
        y, slopes = jax.jvp(f, (v,), (jnp.ones_like(v),))
        return y, jnp.log(jnp.abs(slopes))

    return token_map


def _read_parameters(teacher: AutoregressiveModel, x, context):
    if teacher.order is not None:
        raise ValueError(f"Expected a teacher in the natural order, got order={teacher.order}.")
    return teacher.conditioner(codes(teacher.conditional, x), context)  # (T, P)


def _check_flow(teacher: Any) -> None:
    if not isinstance(teacher, Flow):
        raise ValueError(
            f"Expected a Flow or an AutoregressiveModel as the teacher, got "
            f"{type(teacher).__name__}."
        )


def _get_normal(conditional: Any) -> MixtureOf:
    """Return the conditional. Raise `ValueError` unless it is a single normal."""
    single = isinstance(conditional, MixtureOf) and conditional.num_components == 1
    if not (single and isinstance(conditional.component, GaussianCDF)):
        raise ValueError(
            f"Expected the conditional MixtureOf(1, GaussianCDF()), got {conditional}."
        )
    return conditional
