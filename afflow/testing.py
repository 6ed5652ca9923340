"""Checks of the properties of a bijector that a flow relies on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.calls import make_typed
from afflow.core.bijector import Bijector


def check_bijector(
    bijector: Bijector,
    *,
    key: jax.Array,
    num_samples: int = 8,
    scale: float = 1.0,
    triangular: bool = False,
    rtol: float | None = None,
) -> None:
    """Check a bijector on random normal events; raise `AssertionError` if a property fails.

    The error names the property and the size of the deviation. The properties are:

    - the inverse undoes the forward direction, and the product of the Jacobians of both
      directions, computed by reverse-mode differentiation, is the identity;
    - both log-determinants equal the log-determinants of the Jacobians;
    - outputs keep shape and dtype;
    - the bijector runs under `jit` and `vmap` with the same result;
    - gradients with respect to the leaves and the input are finite;
    - if `triangular` is set, the Jacobians are lower triangular.

    Args:
        bijector: the bijector to check; events need at least one element.
        key: a PRNG key for the events and contexts.
        num_samples: the number of events.
        scale: the standard deviation of the events.
        triangular: whether the Jacobian must be lower triangular.
        rtol: the tolerance relative to 1 + the largest value compared; by default `1e-3` in float32
            and `1e-8` in float64, by JAX's default float type.

    Raises:
        AssertionError: if a property fails.
        ValueError: if `bijector` is not a `Bijector`.

    Example:
        >>> import afflow, jax
        >>> afflow.check_bijector(afflow.Reverse(3), key=jax.random.key(0))
    """
    if not isinstance(bijector, Bijector):
        raise ValueError(f"Expected a Bijector, got {type(bijector).__name__}: pass a flow's own.")
    dtype = jnp.result_type(float)
    rtol = rtol or (1e-3 if dtype == jnp.float32 else 1e-8)
    x_key, context_key = jax.random.split(make_typed(key))
    x = scale * jax.random.normal(x_key, (num_samples, *bijector.event_shape), dtype)
    context = None
    if bijector.context_shape is not None:
        context = jax.random.normal(context_key, (num_samples, *bijector.context_shape), dtype)
    y, log_det, there = _check_direction("forward", bijector, x, context, rtol, triangular)
    back, log_det_back, home = _check_direction("inverse", bijector, y, context, rtol, triangular)
    _close("inverse(forward(x)) against x", back, x, rtol)
    _close("forward log_det against minus inverse log_det", log_det, -log_det_back, rtol)
    size = np.max(np.abs(home) @ np.abs(there))
    product, identity = home @ there / size, np.eye(there.shape[-1]) / size
    _close("product of the Jacobians of both directions against 1", product, identity, rtol)


def _check_direction(name, bijector, x, context, rtol, triangular):
    """Check one direction; return its values, log-determinants and Jacobians `(num, D, D)`."""
    first = bijector, x[0], None if context is None else context[0]
    _check_shapes(name, x[0], *jax.eval_shape(_run, name, *first))
    (y, log_det), pull = linearize(name, bijector, x, context)
    grads = pull_back(pull, (2 * y, jnp.ones_like(log_det)))
    leaves = [leaf for leaf in jax.tree.leaves(grads) if leaf.dtype != jax.dtypes.float0]
    bad = sum(int((~np.isfinite(leaf)).sum()) for leaf in leaves)  # float0: leaves of integers
    assert bad == 0, f"{name}: {bad} entries of its gradients are not finite."
    matrices = compute_jacobians(pull, np.asarray(y), np.zeros_like(log_det))
    _close(f"{name} under vmap against one event", y[0], _run(name, *first)[0], rtol)
    expected = np.linalg.slogdet(matrices)[1]
    _close(f"{name} log_det against slogdet of the Jacobian", log_det, expected, rtol)
    if triangular:
        _close(f"{name} Jacobian above the diagonal", np.triu(matrices, 1), 0.0, 0.0)
    return y, log_det, matrices


@partial(jax.jit, static_argnums=0)
def _run(name, bijector, x, context):
    return getattr(bijector, f"{name}_and_log_det")(x, context)


@partial(jax.jit, static_argnums=0)
def linearize(name, bijector, x, context):
    """Return values and log-determinants, and the function from their cotangents to gradients."""
    run = jax.vmap(partial(_run, name), in_axes=(None, 0, None if context is None else 0))
    return jax.vjp(lambda bijector, x: run(bijector, x, context), bijector, x)


@jax.jit
def pull_back(pull, cotangents):
    """Return the cotangents of the leaves and the input."""
    return pull(cotangents)


def compute_jacobians(pull, y, zeros):
    """Return the Jacobians `(num, D, D)`, whose rows are the pull-backs of unit vectors."""
    units = np.eye(y[0].size, dtype=y.dtype).reshape(-1, 1, *y.shape[1:])
    rows = [pull_back(pull, (np.broadcast_to(unit, y.shape), zeros))[1] for unit in units]
    return np.stack(rows, 1).reshape(len(y), len(units), -1)


def _check_shapes(name, x, y, log_det):
    assert y.shape == x.shape, f"{name}: expected event shape {x.shape}, got {y.shape}."
    assert y.dtype == x.dtype, f"{name}: expected dtype {x.dtype}, got {y.dtype}."
    assert not log_det.shape, f"{name}: expected a scalar log_det, got shape {log_det.shape}."


def _close(what, value, expected, rtol):
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    error = np.max(np.abs(value - expected), initial=0.0)
    bound = rtol * (1 + np.max(np.abs(expected), initial=0.0))
    assert error <= bound, f"{what}: error {error:.3g} is over the tolerance {bound:.3g}."
