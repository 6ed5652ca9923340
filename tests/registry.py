"""Every bijector and every conditioner once; the shared property tests run over these."""

from collections.abc import Callable

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import afflow

Make = Callable[[], afflow.Bijector]


def randomize(module, scale: float = 0.4, seed: int = 0):
    """Move every parameter off its initial value."""
    rng = np.random.default_rng(seed)
    graph, params, rest = nnx.split(module, nnx.Param, ...)
    params = jax.tree.map(lambda a: a + jnp.asarray(rng.normal(0, scale, a.shape), a.dtype), params)
    return nnx.merge(graph, params, rest)


def cast(module, dtype):
    """Return the module with every array in another float type."""
    return jax.tree.map(lambda a: a.astype(dtype), module)


def made(dim, num_params=2, hidden=(12, 9), **options) -> afflow.MADE:
    """Return a MADE with random weights and a smooth activation."""
    options = {"activation": jnp.tanh, "rngs": nnx.Rngs(0)} | options
    return randomize(afflow.MADE(dim, num_params, hidden, **options))


def autoregressive(dim, hidden=(12, 9), solver=None, **options) -> afflow.MaskedAutoregressive:
    """Return an affine autoregressive layer with random weights."""
    conditioner = made(dim, 2, hidden, **options)
    return afflow.MaskedAutoregressive(conditioner, afflow.Affine(), solver or afflow.Incremental())


def repeated(dim, n=3, **options) -> afflow.Repeat:
    """Return autoregressive layers, scanned over."""

    def layer(rngs):
        conditioner = afflow.MADE(dim, 2, (8,), activation=jnp.tanh, rngs=rngs, **options)
        return afflow.Chain(
            [afflow.Reverse(dim), afflow.MaskedAutoregressive(conditioner, afflow.Affine())]
        )

    return randomize(afflow.Repeat(layer, n, rngs=nnx.Rngs(0)))


def standardize(dim) -> afflow.Standardize:
    return afflow.Standardize(jnp.arange(1.0, dim + 1), 0.5 + jnp.arange(dim))


def interval(dim) -> afflow.Interval:
    return afflow.Interval(-1 - jnp.arange(dim), 1 + 2 * jnp.arange(dim))


def continuous(dim, **options) -> afflow.Continuous:
    """Return a continuous flow solved almost exactly, with forward mode for the checks."""
    field = afflow.MLPField(dim, (8,), rngs=nnx.Rngs(0), **options)
    tight = {"rtol": 1e-11, "atol": 1e-11, "max_steps": 16}
    solver, adjoint = diffrax.Dopri8(), diffrax.DirectAdjoint()
    return randomize(afflow.Continuous(field, solver=solver, adjoint=adjoint, **tight))


TRIANGULAR: dict[str, Make] = {
    "autoregressive": lambda: autoregressive(3),
    "autoregressive D=1": lambda: autoregressive(1),
    "autoregressive D=2": lambda: autoregressive(2),
    "autoregressive D=1 context": lambda: autoregressive(1, context_dim=2),
    "autoregressive D=2 context": lambda: autoregressive(2, context_dim=2),
    "autoregressive H<D": lambda: autoregressive(7, (3, 5)),
    "autoregressive H<D context": lambda: autoregressive(7, (5, 3), context_dim=2),
    "autoregressive linear": lambda: autoregressive(4, ()),
    "autoregressive linear context": lambda: autoregressive(4, (), context_dim=3),
    "autoregressive direct": lambda: autoregressive(4, direct=True),
    "autoregressive residual": lambda: autoregressive(5, (10, 10, 10), residual=True),
    "autoregressive segments": lambda: autoregressive(33, (40, 50)),
    "autoregressive sequential": lambda: autoregressive(4, solver=afflow.Sequential()),
    "autoregressive inverse": lambda: afflow.Inverse(autoregressive(3, context_dim=2)),
    "elementwise affine": lambda: randomize(afflow.Elementwise(afflow.Affine(), 3)),
    "elementwise affine D=1": lambda: randomize(afflow.Elementwise(afflow.Affine(), 1)),
    "standardize": lambda: standardize(3),
    # Domains
    "domain interval": lambda: interval(3),
    "domain interval D=1": lambda: interval(1),
    "domain interval D=2": lambda: interval(2),
    "domain positive": lambda: afflow.Positive(3),
    "domain positive D=1": lambda: afflow.Positive(1),
    "domain simplex": lambda: afflow.Simplex(3),
    "domain simplex of two": lambda: afflow.Simplex(1),
    "domain ordered": lambda: afflow.Ordered(4),
    "domain ordered D=1": lambda: afflow.Ordered(1),
    "domain ordered D=2": lambda: afflow.Ordered(2),
}

BIJECTORS: dict[str, Make] = TRIANGULAR | {
    "elementwise matrix": lambda: randomize(afflow.Elementwise(afflow.Affine(), (2, 3))),
    "permutation": lambda: afflow.Permutation([2, 0, 3, 1]),
    "permutation random": lambda: afflow.Permutation.random(6, jax.random.key(0)),
    "reverse": lambda: afflow.Reverse(3),
    "reverse D=1": lambda: afflow.Reverse(1),
    "chain": lambda: afflow.Chain(
        [autoregressive(3), afflow.Reverse(3), autoregressive(3), standardize(3)]
    ),
    "chain 2-D context": lambda: afflow.Chain(
        [autoregressive(2, context_dim=1), afflow.Reverse(2), autoregressive(2)]
    ),
    "repeat": lambda: repeated(3),
    "repeat 2-D context": lambda: repeated(2, context_dim=2),
    "repeat inverse": lambda: afflow.Inverse(repeated(4)),
    "repeat once": lambda: repeated(3, n=1),
    # Domains
    "domain circle": lambda: randomize(afflow.CircularShift(3)),
    "domain chain": lambda: afflow.Chain([autoregressive(2), afflow.Positive(2)]),
    # Continuous flows
    "continuous context": lambda: continuous(2, context_dim=2),
    "continuous D=1": lambda: continuous(1),
}

CONDITIONERS: dict[str, Callable[[], afflow.Conditioner]] = {
    "made": lambda: made(5, 3),
    "made D=1": lambda: made(1, 2),
    "made D=1 context": lambda: made(1, 2, context_dim=2),
    "made H=1": lambda: made(6, 2, (1,)),
    "made H<D context": lambda: made(6, 2, (3, 4), context_dim=2),
    "made linear": lambda: made(5, 2, ()),
    "made linear context": lambda: made(5, 2, (), context_dim=1),
    "made direct": lambda: made(4, 1, direct=True, context_dim=2),
    "made residual": lambda: made(5, 2, (8, 8, 8, 8, 8), residual=True, context_dim=1),
    "made wide": lambda: made(9, 2, (300, 260)),
}


def events(module, num: int = 5, scale: float = 1.0, dtype=jnp.float64):
    """Return random events and contexts (or `None`) for a module."""
    x_key, context_key = jax.random.split(jax.random.key(1))
    x = scale * jax.random.normal(x_key, (num, *module.event_shape), dtype)
    if module.context_shape is None:
        return x, None
    return x, jax.random.normal(context_key, (num, *module.context_shape), dtype)


def batched(f):
    """Map over events, and over contexts if there are any."""

    def mapped(x, context):
        return jax.vmap(f, in_axes=(0, None if context is None else 0))(x, context)

    return mapped
