"""The search for a learning rate."""

import jax
import numpy as np
import pytest
from flax import nnx

import afflow
from afflow.training import find_learning_rate

X = 3 + np.random.default_rng(0).normal(size=(300, 2))
OPTIONS = {"key": jax.random.key(1), "num_steps": 80, "progress": False}


def make_flow(**options):
    return afflow.maf(2, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0), **options)


def test_losses_belong_to_growing_rates():
    flow = make_flow()
    before = jax.tree.map(np.array, flow)
    search = find_learning_rate(flow, X, batch_size=64, low=1e-5, high=10.0, **OPTIONS)
    steps = np.arange(len(search.rates))
    np.testing.assert_allclose(search.rates, 1e-5 * 10 ** (6 * steps / 80))
    assert len(search.losses) == len(search.smoothed) == len(steps)
    assert search.smoothed[0] == pytest.approx(search.losses[0])
    assert search.smoothed.min() < search.smoothed[0] - 0.5  # some rates train
    assert search.suggestion == search.rates[search.smoothed.argmin()] / 10
    assert 1e-4 < search.suggestion < 1
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), flow, before))


def test_the_first_loss_is_the_loss_of_its_minibatch():
    flow = make_flow()
    search = find_learning_rate(flow, X, batch_size=len(X), **OPTIONS | {"num_steps": 2})
    np.testing.assert_allclose(search.losses[0], -flow.log_prob(X).mean(), rtol=1e-9)


def test_a_run_that_diverges_ends():
    def explode(flow, key, x, context):
        return flow.log_prob(x) ** 2 * 1e3

    search = find_learning_rate(
        make_flow(), X, batch_size=64, low=1e-3, high=1e12, objective=explode, **OPTIONS
    )
    assert len(search.losses) < 80
    steps = np.arange(len(search.losses))
    np.testing.assert_allclose(search.rates, 1e-3 * 1e15 ** (steps / 80))
    assert np.isfinite(search.losses).all()
    assert search.suggestion < search.rates[-1] / 10


def test_a_table_is_encoded():
    columns = {"a": afflow.Real(), "b": afflow.Real()}
    rows = {"a": X[:, 0], "b": X[:, 1]}
    flow = make_flow(columns=columns, data=rows)
    search = find_learning_rate(flow, rows, batch_size=len(X), **OPTIONS | {"num_steps": 2})
    np.testing.assert_allclose(search.losses[0], -flow.log_prob(rows).mean(), rtol=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 0.0}, "low"),
        ({"low": 1.0, "high": 0.1}, "high"),
        ({"num_steps": 0}, "num_steps"),
        ({"objective": 3}, "objective"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=f"Expected.*{message}"):
        find_learning_rate(make_flow(), X, **OPTIONS | options)
