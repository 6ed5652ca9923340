"""The number of steps between two updates of the progress bar."""

import jax
from flax import nnx

import afflow
from afflow.training import pace
from afflow.training.pace import Pace


def test_a_pace_lasts_three_seconds():
    steps = Pace()
    assert steps.choose(100) == 1  # the call that compiles
    steps.learn(1, 60.0)
    assert steps.choose(100) == 1
    steps.learn(1, 0.06)
    assert steps.choose(100) == 50
    assert steps.choose(7) == 7
    steps.learn(50, 100.0)  # another shape of data was compiled
    assert steps.choose(100) == 1


def test_the_pace_changes_no_bit(monkeypatch):
    """Check a run whose every step is a call of the program against a run of longer calls."""

    def loss(flow, key, batch):
        return -flow.log_prob(jax.random.normal(key, (16, 2))).mean()

    def run(seconds):
        monkeypatch.setattr(pace, "_SECONDS", seconds)
        flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.Affine(), 2))
        options = {"key": jax.random.key(0), "num_steps": 40, "max_epochs": 2, "progress": False}
        flow, history = afflow.training.train(flow, loss, **options)
        return history.train, [a.tolist() for a in jax.tree.leaves(nnx.state(flow, nnx.Param))]

    assert run(0.0) == run(1e9)
