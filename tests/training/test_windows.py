"""Windows of long sequences."""

import jax
import numpy as np
import pytest
from flax import nnx

import afflow

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
