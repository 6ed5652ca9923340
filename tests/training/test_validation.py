"""The mean loss of held-out rows: every row counts once, in one program for all batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from afflow.training import sources
from afflow.training.rows import Rows

KEY = jax.random.key(0)


def losses(scale, key, x, context):
    """Return the losses of rows."""
    return scale * jnp.sin(x).sum(1)


@pytest.mark.parametrize("num_parts", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 16, 17, 100])
def test_batches_are_equal_and_divide_over_devices(monkeypatch, size, num_parts):
    monkeypatch.setattr(sources, "_NUMBERS", 3 * 8)
    index = sources._make_batches(Rows(np.zeros((size, 3)), None, None), num_parts)
    assert index.shape[1] % num_parts == 0
    assert index.shape[1] < 8 + num_parts
    np.testing.assert_array_equal(index.ravel()[:size], np.arange(size))
    assert index.size - size < len(index) * num_parts
    assert (index.ravel()[size:] == size - 1).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 8, 13, 40])
def test_every_row_counts_once(monkeypatch, size, weighted):
    monkeypatch.setattr(sources, "_NUMBERS", 2 * 8)
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(size, 2)), rng.uniform(size=size) if weighted else None
    rows = Rows(jnp.asarray(x), None, None if weights is None else jnp.asarray(weights))
    index = sources._make_batches(rows, 3)
    found = sources._compute_mean_loss(Partial(losses), rows, KEY, index, jnp.array(2.0))
    expected = np.average(2 * np.sin(x).sum(1), weights=weights)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_all_batches_run_one_program(monkeypatch):
    monkeypatch.setattr(sources, "_NUMBERS", 2 * 8)
    rows = Rows(jnp.ones((13, 2)), None, None)
    arguments = Partial(losses), rows, KEY, sources._make_batches(rows), jnp.array(2.0)
    assert sources._compute_mean_loss.lower(*arguments).as_text().count("stablehlo.sine") == 1
