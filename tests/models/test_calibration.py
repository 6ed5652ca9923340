"""The choice of a solver for every layer, with times set by the test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from registry import randomize

import afflow
from afflow.models import calibration

KEY = jax.random.key(0)
FAST, SLOW = afflow.Jacobi(), afflow.Incremental()


@pytest.fixture
def seconds(monkeypatch):
    """Set the seconds of each measurement, in the order of the measurements."""
    times = []
    monkeypatch.setattr(calibration, "_measure", lambda run: times.pop(0))
    return times


def make_flow(factory=afflow.maf, **options):
    flow = factory(3, num_layers=3, hidden=(4,), rngs=nnx.Rngs(0), **options)
    return randomize(flow)


def solvers_of(flow):
    layers = (module for _, module in nnx.iter_modules(flow))
    return [m.solver for m in layers if isinstance(m, afflow.MaskedAutoregressive)]


@pytest.mark.parametrize("factory", [afflow.maf, afflow.iaf])
def test_layers_of_a_repeat_get_their_own_solvers(seconds, factory):
    seconds += [2.0, 1.0, 2.0, 3.0, 2.0, 1.0]
    flow = make_flow(factory)
    found = afflow.calibrate(flow, KEY, candidates=[SLOW, FAST])
    assert sorted(solvers_of(found), key=repr) == [SLOW, FAST, FAST]
    assert seconds == []
    assert not any(isinstance(m, afflow.Repeat) for _, m in nnx.iter_modules(found))
    x = flow.sample(KEY, 4)
    np.testing.assert_allclose(found.sample(KEY, 4), x, rtol=1e-10)
    np.testing.assert_allclose(found.log_prob(x), flow.log_prob(x), rtol=1e-10)
    assert set(solvers_of(flow)) == {SLOW}


def test_equal_choices_keep_the_repeat_and_need_a_tenth(seconds):
    flow = make_flow()
    seconds += [2.0, 1.0] * 3
    found = afflow.calibrate(flow, KEY, candidates=[SLOW, FAST])
    assert solvers_of(found) == [FAST]
    assert jax.tree.structure(found) != jax.tree.structure(flow)
    seconds += [1.0, 0.95] * 3
    assert solvers_of(afflow.calibrate(flow, KEY, candidates=[SLOW, FAST])) == [SLOW]


def test_a_wrong_solver_is_not_taken(seconds):
    seconds += [1.0] * 3
    candidates = [SLOW, afflow.Jacobi(max_steps=1)]
    assert solvers_of(afflow.calibrate(make_flow(), KEY, candidates=candidates)) == [SLOW]
    assert seconds == []


def test_columns_with_names(seconds):
    rows = {"a": np.arange(20.0) + 1e6, "b": np.arange(20) % 3}
    sizes = {"num_layers": 1, "hidden": (4,), "columns": {"b": afflow.Whole(0)}}
    flow = randomize(afflow.maf(2, data=rows, **sizes, rngs=nnx.Rngs(0)))
    seconds += [2.0, 1.0]
    found = afflow.calibrate(flow, KEY, candidates=[SLOW, FAST])
    assert solvers_of(found) == [FAST]
    for name, column in flow.sample(KEY, 5).items():
        np.testing.assert_allclose(found.sample(KEY, 5)[name], column)
    z = np.ones((3, 2))
    visit = lambda *args, **options: None  # noqa: E731
    y = flow.bijector.walk(z, None, visit, forward=True)
    np.testing.assert_allclose(y, jax.vmap(flow.bijector.forward)(z))
    np.testing.assert_allclose(flow.bijector.walk(y, None, visit), z, rtol=1e-6)


def test_contexts_reach_the_layers(seconds):
    seconds += [1.0, 2.0] * 3
    flow = make_flow(context_dim=2)
    assert solvers_of(afflow.calibrate(flow, KEY, context=jnp.ones(2), candidates=[SLOW, FAST]))
    with pytest.raises(ValueError, match="context"):
        afflow.calibrate(flow, KEY)


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: afflow.models.Reshaped(m, (2, 2))])
def test_symbols_do_not_depend_on_the_solver(seconds, wrap):
    sizes = {"width": 8, "num_layers": 1, "num_heads": 2, "features": 3}
    net = randomize(afflow.conditioners.Transformer(4, 3, **sizes, rngs=nnx.Rngs(0)))
    model = wrap(afflow.AutoregressiveModel(net, afflow.conditionals.Categorical(3)))
    candidates = [SLOW, FAST, afflow.Jacobi(block=3)]
    seconds += [3.0, 2.0, 1.0]
    found = afflow.calibrate(model, KEY, candidates=candidates)
    inner = getattr(found, "model", found)
    assert inner.solver == candidates[-1]
    x = model.sample(KEY, 50)
    assert len(np.unique(x, axis=0)) > 10
    np.testing.assert_array_equal(found.sample(KEY, 50), x)
    np.testing.assert_array_equal(found.greedy(), model.greedy())


class Refusing(afflow.bijectors.Solver):
    """A solver that raises an error instead of running."""

    def run(self, conditioner, emit, inputs, context):
        raise RuntimeError("refused")


def test_a_density_model_runs_its_solver():
    net = afflow.MADE(3, 1, rngs=nnx.Rngs(0))
    model = afflow.AutoregressiveModel(net, afflow.conditionals.Bernoulli(), solver=Refusing())
    for changed in (model, model.without_noise(), model.with_length(3)):
        for draw in (lambda m: m.sample(KEY), lambda m: m.greedy()):
            with pytest.raises(RuntimeError, match="refused"):
                draw(changed)


def test_layers_map_the_events_that_reach_them(seconds, monkeypatch):
    """Check that the layer of an IAF is tried on data, which it maps to noise serially."""
    tried, run = [], calibration.map_events

    def record(layer, x, context, *, forward=False):
        out = run(layer, x, context, forward=forward)
        tried.extend([out] * forward)
        return out

    monkeypatch.setattr(calibration, "map_events", record)
    seconds += [1.0]
    flow = randomize(afflow.iaf(3, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0)))
    afflow.calibrate(flow, KEY, num_samples=5, candidates=[SLOW])
    z = jax.vmap(flow.base.sample)(jax.random.split(KEY, 5))
    np.testing.assert_allclose(tried[0], z, rtol=1e-10)


def test_calibration_of_a_flow_without_layers():
    flow = afflow.Flow(afflow.Normal(2), afflow.Reverse(2))
    with pytest.raises(ValueError, match="autoregressive layers"):
        afflow.calibrate(flow, KEY)


@pytest.mark.parametrize("model", [3, afflow.zoo.deep_nade(3, hidden=(4,), rngs=nnx.Rngs(0))])
def test_calibration_of_other_models(model):
    with pytest.raises(ValueError, match="a Flow or AutoregressiveModel or Reshaped as model"):
        afflow.calibrate(model, KEY)


def test_the_clock_measures(monkeypatch):
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0])
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: next(times))
    assert calibration._measure(lambda: jnp.zeros(())) == 1.0


def test_default_candidates():
    made = afflow.MADE(16, 2, rngs=nnx.Rngs(0))
    sizes = {"width": 8, "num_layers": 1, "num_heads": 2}
    net = afflow.conditioners.Transformer(16, 2, **sizes, rngs=nnx.Rngs(0))
    assert calibration._list_candidates(made) == [SLOW, FAST]
    blocks = [afflow.Jacobi(block=size) for size in (8, 4, 2)]
    assert calibration._list_candidates(net) == [SLOW, FAST, *blocks]
