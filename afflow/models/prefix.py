"""Exact marginals and conditionals of a flow whose observed coordinates come first."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_instance
from afflow._tools.calls import call, check_floating, per_event
from afflow._tools.numerics import at_finite
from afflow._tools.shapes import Shape
from afflow.models.flow import Flow
from afflow.models.marginals import check_triangular, complete, compute_marginal


def prefix_log_prob(flow: Flow, prefix: jax.Array, context: jax.Array | None = None) -> jax.Array:
    r"""Return the log-density of the first `k` coordinates, with the rest integrated out.

    $$\log p(x_{<k}) = \log p_0(z_{<k}) + \sum_{t<k} \log|\partial z_t / \partial x_t|$$

    The result is exact. It requires a lower triangular flow on a `Normal` or `Uniform` base. Lower
    triangular layers are `MaskedAutoregressive`, `BNAF`, `Triangular`, `Ordered` and elementwise
    layers, also in a `Chain`, `Repeat` or `Inverse`. `afflow.made` builds such a flow, and so does
    any factory of these layers with one layer. A permutation of the noise before the first layer
    is allowed. A flow that mixes or reorders its coordinates later, such as `maf` with more than
    one layer, has no closed form and raises an error.

    The cost is about one event of sampling and `D - k + 1` densities.

    Args:
        flow: a lower triangular flow over vectors.
        prefix: the observed coordinates `(..., k)`, with `1 <= k <= D`.
        context: `(..., *context_shape)`. The leading axes of `prefix` and `context` broadcast.

    Returns:
        Log-densities `(...)`, in nats.

    Raises:
        ValueError: for a flow that is not triangular or not over vectors, for another base, for a
            prefix that does not fit, or for a context that is missing, not wanted or of another
            shape.

    Example:
        >>> import afflow, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.made(3, rngs=nnx.Rngs(0))
        >>> round(afflow.models.prefix_log_prob(flow, jnp.zeros(2)).item(), 4)
        -1.8379
    """
    return call(_log_prob, flow, (_checked(flow, prefix),), context)


def sample_rest(
    flow: Flow,
    key: jax.Array,
    prefix: jax.Array,
    context: jax.Array | None = None,
    shape: int | Shape = (),
) -> jax.Array:
    """Draw events `(*shape, ..., D)` given their first coordinates `prefix` `(..., k)`.

    The samples are from the exact conditional distribution. A prefix of density zero has no
    conditional distribution; its samples are meaningless.

    Args:
        flow: as in `prefix_log_prob`.
        key: a PRNG key.
        prefix: as in `prefix_log_prob`.
        context: as in `prefix_log_prob`.
        shape: the number or shape of events to draw for each prefix and context.

    Raises:
        ValueError: as for `prefix_log_prob`.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> from flax import nnx
        >>> flow = afflow.made(3, rngs=nnx.Rngs(0))
        >>> x = afflow.models.sample_rest(flow, jax.random.key(0), jnp.ones(2), shape=5)
        >>> x.shape, x[:, :2].mean().item()
        ((5, 3), 1.0)
    """
    return call(_sample, flow, (_checked(flow, prefix),), context, key=key, shape=shape)


@per_event
def _log_prob(flow, item, context):
    x, observed = _pad(flow, *item)
    options = {"observed": observed, "context": context, "least": len(item[0])}
    return at_finite(partial(compute_marginal, flow.base, flow.bijector, **options), x)


@per_event
def _sample(flow, item, context):
    prefix, key = item
    x = complete(flow.bijector, *_pad(flow, prefix), flow.base.sample(key, context), context)
    return jnp.concatenate([prefix, x[len(prefix) :]])


def _pad(flow: Flow, prefix: jax.Array) -> tuple[jax.Array, np.ndarray]:
    """Return the prefix with zeros behind it, and which of the coordinates are the prefix."""
    (dim,) = flow.event_shape
    return jnp.pad(prefix, (0, dim - len(prefix))), np.arange(dim) < len(prefix)


def _checked(flow: Flow, prefix: jax.Array) -> jax.Array:
    """Return `prefix` as a floating-point array. Raise `ValueError` if the flow cannot use it."""
    check_instance("flow", flow, Flow)
    check_triangular(flow.base, flow.bijector)
    size, (dim,) = np.shape(prefix)[-1:], flow.event_shape
    if not size or not 1 <= size[0] <= dim:
        raise ValueError(
            f"Expected prefix.shape (..., k) with 1 <= k <= {dim}, got {np.shape(prefix)}."
        )
    return check_floating("prefix", prefix, size)
