"""The number of steps between two updates of the progress bar."""

import jax

import afflow
from afflow.training.pace import Pace


def test_a_pace_lasts_three_seconds():
    pace = Pace()
    assert pace.choose(100) == 1  # the call that compiles
    pace.learn(1, 60.0)
    assert pace.choose(100) == 1
    pace.learn(1, 0.06)
    assert pace.choose(100) == 50
    assert pace.choose(7) == 7
    pace.learn(50, 100.0)  # another shape of data was compiled
    assert pace.choose(100) == 1


def test_the_pace_changes_no_bit():
    """Check a run whose every step is a call of the program against a run of longer calls."""

    def loss(flow, key, batch):
        return -flow.log_prob(jax.random.normal(key, (16, 2))).mean()

    def history(chunk):
        flow = afflow.Flow(afflow.Normal(2), afflow.Elementwise(afflow.Affine(), 2))
        options = {"key": jax.random.key(0), "num_steps": 40, "max_epochs": 2, "progress": False}
        return afflow.training.train(flow, loss, chunk=chunk, **options)[1].train

    assert history(1) == history(None)
