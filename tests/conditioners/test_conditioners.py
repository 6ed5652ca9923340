"""Properties of every conditioner in the registry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from registry import CONDITIONERS, batched, events

import afflow


@pytest.mark.parametrize("name", CONDITIONERS)
def test_causal_and_dense(name):
    conditioner = CONDITIONERS[name]()
    x, context = events(conditioner, num=1)
    context = None if context is None else context[0]
    params = jax.eval_shape(conditioner, x[0], context)
    assert params.shape == (len(x[0]), conditioner.num_params)
    jacobian = jax.jit(jax.jacfwd(lambda x: conditioner(x, context)))(x[0])  # (T, P, T, *token)
    jacobian = jacobian.reshape(*jacobian.shape[:3], -1)
    jacobian = jnp.moveaxis(jacobian, 3, 1).reshape(len(x[0]), -1, len(x[0]))  # (T, C P, T)
    parents = np.array(getattr(conditioner, "adjacency", np.tri(len(x[0]), k=-1)), bool)
    seen = np.moveaxis(np.asarray(jacobian), 1, -1)  # (T, T, C P)
    assert (seen[~parents] == 0).all()
    assert (seen[parents] != 0).all()


@pytest.mark.parametrize("name", [name for name in CONDITIONERS if "context" in name])
def test_every_row_sees_the_context(name):
    conditioner = CONDITIONERS[name]()
    x, context = events(conditioner, num=1)
    jacobian = jax.jit(jax.jacfwd(lambda c: conditioner(x[0], c)))(context[0])  # (D, P, C)
    assert (jacobian != 0).all()


@pytest.mark.parametrize("name", CONDITIONERS)
def test_steps_equal_the_pass(name):
    conditioner = CONDITIONERS[name]()
    x, context = events(conditioner, num=1)
    context = None if context is None else context[0]

    @jax.jit
    def both(x):
        def body(cache, scanned):
            row, cache = conditioner.step(*scanned, cache)
            return cache, row

        inputs = jnp.roll(x, 1, axis=0), jnp.arange(len(x))
        cache, rows = jax.lax.scan(body, conditioner.init_cache(context), inputs)
        found = [rows]
        if conditioner.cache_only_grows:  # the last cache serves every step
            found.append(jax.lax.map(lambda scanned: conditioner.step(*scanned, cache)[0], inputs))
        return found, conditioner(x, context)

    found, expected = both(x[0])
    for rows in found:
        np.testing.assert_allclose(rows, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CONDITIONERS)
def test_tokens_taken_in_two_parts_equal_the_pass(name):
    conditioner = CONDITIONERS[name]()
    x, context = events(conditioner, num=1)
    context = None if context is None else context[0]
    cuts = range(1, len(x[0])) if has_own(conditioner, "prefill") else [1]

    @jax.jit
    def run(x, t, before, after):
        first, cache = conditioner.prefill(before, 0, conditioner.init_cache(context))
        second, _ = conditioner.prefill(after, t, cache)
        return jnp.concatenate([first, second]), conditioner(x, context)

    for cut in cuts:
        x_prev = jnp.roll(x[0], 1, axis=0)
        parts = run(x[0], jnp.asarray(cut), x_prev[:cut], x_prev[cut:])
        np.testing.assert_allclose(*parts, rtol=1e-12, atol=1e-12)


def has_own(conditioner, method):
    """Return whether the class overrides a method of `Conditioner`."""
    return getattr(type(conditioner), method) is not getattr(afflow.Conditioner, method)


@pytest.mark.parametrize("name", CONDITIONERS)
def test_decode_equals_full_passes(name):
    conditioner = CONDITIONERS[name]()
    x, context = events(conditioner)

    def emit(z, params):
        return z + jnp.tanh(params).sum(), params

    def run(solver):
        def one(z, c):
            return solver.run(conditioner, Partial(emit), z, c)

        return jax.jit(batched(one))(x, context)

    for fast, slow in zip(run(afflow.Incremental()), run(afflow.FullPasses()), strict=True):
        np.testing.assert_allclose(fast, slow, rtol=1e-11, atol=1e-11)
