"""Exact marginals and conditionals of a flow whose observed coordinates come first."""

import jax
import jax.numpy as jnp

from afflow.autoregressive import MaskedAutoregressive
from afflow.bijector import Bijector, Inverse
from afflow.bnaf import BNAF
from afflow.compose import Chain, Repeat
from afflow.distributions import Flow, Normal, Uniform
from afflow.elementwise import Elementwise, Standardize

_LAYERS = MaskedAutoregressive, BNAF, Elementwise, Standardize


def prefix_log_prob(flow: Flow, prefix: jax.Array, context: jax.Array | None = None) -> jax.Array:
    r"""Return the log-density of the first `k` coordinates, the others integrated out.

    $$\log p(x_{<k}) = \log p_0(z_{<k}) + \sum_{t<k} \log|\partial z_t / \partial x_t|$$

    It is exact where the flow is lower triangular: `MaskedAutoregressive`, `BNAF`, `Elementwise`
    and `Standardize` layers, in a `Chain`, `Repeat` or `Inverse`, on a `Normal` or `Uniform` base,
    as `afflow.made` builds it. A flow that mixes or reorders its coordinates, as
    `maf` with more than one layer does, has no closed form and is refused. The price is the
    density of `k` events.

    Args:
        flow: a lower triangular flow over vectors.
        prefix: `(..., k)`, the observed coordinates.
        context: `(..., *context_shape)`.

    Returns:
        Log-densities `(...)`, in nats.

    Raises:
        ValueError: for a flow that is not triangular, or a prefix that does not fit.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.made(3, rngs=nnx.Rngs(0))
        >>> round(afflow.prefix_log_prob(flow, jnp.zeros(2)).item(), 4)
        -1.8379
    """
    size = _check(flow, prefix)

    def one(prefix, context):
        def noise(prefix):
            return flow.bijector.inverse(_padded(prefix, flow), context)[:size]

        slopes = jnp.diagonal(jax.jacfwd(noise)(prefix))
        share = flow.base.log_prob(noise(prefix), context)
        return share + jnp.sum(jnp.log(jnp.abs(slopes)))

    return _mapped(one, prefix, context, flow)


def sample_rest(
    flow: Flow, key: jax.Array, prefix: jax.Array, context: jax.Array | None = None
) -> jax.Array:
    """Draw events `(..., D)` that begin with `prefix` `(..., k)`, from the exact conditional.

    Exact where `prefix_log_prob` is. Arguments and errors are the same.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.made(3, rngs=nnx.Rngs(0))
        >>> afflow.sample_rest(flow, jax.random.key(0), jnp.ones((5, 2)))[:, :2].mean().item()
        1.0
    """
    size = _check(flow, prefix)

    def one(prefix_and_key, context):
        prefix, key = prefix_and_key
        z = flow.bijector.inverse(_padded(prefix, flow), context)
        free = flow.base.sample(key, context).astype(z.dtype)
        x = flow.bijector.forward(jnp.concatenate([z[:size], free[size:]]), context)
        return jnp.concatenate([prefix, x[size:]])

    keys = jax.random.split(key, prefix.shape[:-1])
    return _mapped(one, (prefix, keys), context, flow)


def _mapped(one, arguments, context, flow):
    """Compile, and map over the leading axes of the arguments."""
    leading = jax.tree.leaves(arguments)[0].ndim - 1
    if context is not None:
        shape = jax.tree.leaves(arguments)[0].shape[:-1] + flow.context_shape
        context = jnp.broadcast_to(context, shape)
    for _ in range(leading):
        one = jax.vmap(one, in_axes=(0, None if context is None else 0))
    return jax.jit(one)(arguments, context)


def _padded(prefix: jax.Array, flow: Flow) -> jax.Array:
    return jnp.pad(prefix, (0, flow.event_shape[0] - len(prefix)))


def _check(flow: Flow, prefix: jax.Array) -> int:
    """Return `k`; `ValueError` if the flow is not triangular or the prefix does not fit."""
    _check_triangular(flow.bijector)
    if not isinstance(flow.base, Normal | Uniform):
        raise ValueError(f"Expected a Normal or Uniform base, got {type(flow.base).__name__}.")
    (dim,) = flow.event_shape
    if prefix.ndim < 1 or not 1 <= prefix.shape[-1] <= dim:
        raise ValueError(
            f"Expected prefix.shape (..., k) with 1 <= k <= {dim}, got {prefix.shape}."
        )
    return prefix.shape[-1]


def _check_triangular(bijector: Bijector) -> None:
    if isinstance(bijector, Chain):
        for part in bijector.bijectors:
            _check_triangular(part)
    elif isinstance(bijector, Inverse):
        _check_triangular(bijector.bijector)
    elif isinstance(bijector, Repeat):
        _check_triangular(bijector.layers)
    elif not isinstance(bijector, _LAYERS):
        raise ValueError(
            f"Expected layers that keep the order of the coordinates (MaskedAutoregressive, "
            f"BNAF, Elementwise, Standardize), got {type(bijector).__name__}: use afflow.made, or "
            f"one layer with the observed coordinates first."
        )
