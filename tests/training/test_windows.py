"""Windows of long sequences."""

import jax
import numpy as np
import pytest
from flax import nnx
from registry import randomize, recurrent, tcn, transformer, wavenet

import afflow
from afflow.core.conditioner import Place
from afflow.training.carried import Carried

SEQUENCE = np.arange(1000)


def test_an_epoch_covers_the_sequence_without_overlap():
    stream = afflow.training.cut_windows(SEQUENCE, 16, 8)
    assert stream.num_steps == (1000 - 15) // (16 * 8)
    batches = [batch for batch, _ in zip(stream.make(3), range(stream.num_steps), strict=False)]
    seen = np.stack(batches).reshape(-1, 16)
    np.testing.assert_array_equal(np.diff(seen), 1)  # neighbours stay neighbours
    assert len(np.unique(seen)) == seen.size
    assert len({window[0] % 16 for window in seen}) == 1  # one offset


def test_epochs_differ_and_repeat():
    stream = afflow.training.cut_windows(SEQUENCE, 16, 8)
    first, again, second = (next(iter(stream.make(epoch))) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != second).any()


def test_tokens_of_several_values_and_files(tmp_path):
    frames = np.memmap(tmp_path / "frames", np.float32, "w+", shape=(300, 4))
    frames[:] = np.arange(300)[:, None]
    batch = next(iter(afflow.training.cut_windows(frames, 10, 3).make(0)))
    assert batch.shape == (3, 10, 4)


def test_too_short_a_sequence_is_an_error():
    with pytest.raises(ValueError, match="at least 143 tokens"):
        afflow.training.cut_windows(np.arange(142), 16, 8)
    assert afflow.training.cut_windows(np.arange(143), 16, 8).num_steps == 1


def test_fit_learns_a_cycle():
    """The next symbol of a cycle is certain once the first is known."""
    text = np.arange(3000) % 5
    network = afflow.conditioners.Recurrent(12, 5, (16,), features=5, rngs=nnx.Rngs(0))
    model = afflow.AutoregressiveModel(network, afflow.conditionals.Categorical(5))
    model, history = afflow.fit(
        model,
        afflow.training.cut_windows(text, 12, 16),
        key=jax.random.key(0),
        validation=0,
        max_epochs=20,
        learning_rate=0.02,
        progress=False,
    )
    assert history.train[-1] < np.log(5) + 0.2  # only the first symbol is a surprise
    tokens, _ = model.generate(jax.random.key(1), np.array([3]), 40, top_k=1)
    np.testing.assert_array_equal(tokens, (3 + np.arange(40)) % 5)


def test_consecutive_windows_read_their_parts_in_order():
    stream = afflow.training.cut_windows(SEQUENCE, 16, 8, consecutive=True)
    assert (stream.num_steps, stream.consecutive) == ((1000 // 8 - 15) // 16, True)
    offsets = []
    for epoch in range(5):
        parts = np.concatenate(list(stream.make(epoch)), axis=1)  # (8, steps * 16)
        np.testing.assert_array_equal(np.diff(parts), 1)
        np.testing.assert_array_equal(parts[:, 0] - parts[0, 0], 125 * np.arange(8))
        assert parts[0, -1] < 125
        offsets.append(parts[0, 0])
    assert len(set(offsets)) > 1
    with pytest.raises(ValueError, match="num_steps <= 6"):
        afflow.training.cut_windows(SEQUENCE, 16, 8, num_steps=7, consecutive=True)
    with pytest.raises(ValueError, match="at least 248 tokens"):
        afflow.training.cut_windows(np.arange(247), 16, 8, consecutive=True)
    assert afflow.training.cut_windows(np.arange(248), 16, 8, consecutive=True).num_steps == 1


CARRYING = {
    "recurrent": lambda: recurrent(4, 3, (5,), features=3, cell=nnx.GRUCell),
    "wavenet": lambda: wavenet(4, 3, (1, 2, 2), features=3),
    "tcn": lambda: tcn(4, 3, (4,), features=3),
    "markov": lambda: randomize(afflow.conditioners.Markov(4, 3, 2), 1.0),
}


def symbols(name) -> afflow.AutoregressiveModel:
    """Return a model of windows of four symbols."""
    return afflow.AutoregressiveModel(CARRYING[name](), afflow.conditionals.Categorical(3))


@pytest.mark.parametrize("name", CARRYING)
def test_carried_windows_score_as_one_sequence(name):
    model = symbols(name)
    text = np.random.default_rng(0).integers(0, 3, 60)
    stream = afflow.training.cut_windows(text, 4, 3, consecutive=True)
    carried, key = Carried(model, stream), jax.random.key(0)
    for _ in range(2):  # the state starts anew with every epoch
        batches = [jax.numpy.asarray(batch) for batch in stream.make(1)]
        found = sum(carried.training_log_prob(key, batch) for batch in batches)
        whole = np.concatenate(batches, axis=1)
        exact = model.with_length(whole.shape[1]).log_prob(whole)
        np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_no_gradient_passes_into_the_window_before():
    model = symbols("recurrent")
    text = np.random.default_rng(0).integers(0, 3, 60)
    stream = afflow.training.cut_windows(text, 4, 3, consecutive=True)
    first, second, *_ = (jax.numpy.asarray(batch) for batch in stream.make(0))
    carried, key = Carried(model, stream), jax.random.key(0)
    carried.training_log_prob(key, first)

    def truncated(model, states):
        terms = jax.vmap(lambda x, place: model.read(x, place)[0], (0, Place(0, None, 0)))
        return terms(second, states).sum()

    start = model.conditioner.begin()
    read = jax.vmap(lambda x: model.read(x, start)[1], out_axes=Place(0, None, 0))
    expected = jax.grad(truncated)(model, read(first))
    graph, params, states = nnx.split(carried, nnx.Param, ...)

    @jax.jit
    def gradient(params, states):
        def loss(params):
            model = nnx.merge(graph, params, jax.tree.map(jax.numpy.copy, states))
            return model.training_log_prob(key, second).sum()

        return jax.grad(loss)(params)

    found = gradient(params, states)["model"]
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_fit_carries_the_state_and_resumes_within_an_epoch(tmp_path):
    text = np.random.default_rng(0).integers(0, 3, 200)
    windows = afflow.training.cut_windows(text, 4, 3, consecutive=True)

    def read(epoch):
        for step, batch in enumerate(windows.make(epoch)):
            if (tmp_path / "broken").exists() and (epoch, step) == (1, 10):
                raise OSError("broken")
            yield batch

    stream = afflow.training.Stream(read, windows.num_steps, consecutive=True)
    model, seen = symbols("recurrent"), []
    options = {"key": jax.random.key(0), "progress": False, "max_epochs": 2}
    options |= {"validation": text[None, :50]}

    def fit(folder):
        checkpoint = afflow.Checkpoint(tmp_path / folder, steps=4)
        return afflow.fit(model, stream, checkpoint=checkpoint, callbacks=[seen.append], **options)

    trained, history = fit("whole")
    assert isinstance(trained, afflow.AutoregressiveModel)
    assert isinstance(seen[0].model, afflow.AutoregressiveModel)
    value = -trained.with_length(50).log_prob(text[:50]) / 50 * 4
    np.testing.assert_allclose(history.validation[history.best_epoch], value, rtol=1e-6)
    (tmp_path / "broken").touch()
    with pytest.raises(OSError, match="broken"):
        fit("killed")
    (tmp_path / "broken").unlink()
    again, found = fit("killed")
    assert found == history
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(trained), strict=True):
        np.testing.assert_array_equal(a, b)


def test_models_that_cannot_carry_a_state_are_refused():
    text = np.random.default_rng(0).integers(0, 3, 200)
    stream = afflow.training.cut_windows(text, 4, 3, consecutive=True)
    categorical = afflow.conditionals.Categorical(3)
    attention = afflow.AutoregressiveModel(transformer(4, 3, features=3), categorical)
    with pytest.raises(ValueError, match="state of one size"):
        afflow.fit(attention, stream, key=jax.random.key(0))
    given = afflow.AutoregressiveModel(
        recurrent(4, 3, (5,), features=3, context_dim=2), categorical
    )
    with pytest.raises(ValueError, match="without context"):
        afflow.fit(given, stream, key=jax.random.key(0))


def test_an_epoch_has_steps():
    with pytest.raises(ValueError, match="num_steps"):
        afflow.training.cut_windows(SEQUENCE, 16, 8, num_steps=0)
