"""Minibatches of Parquet files, of grain, and of data frames of polars."""

from collections import Counter

import jax
import numpy as np
import pytest
from flax import nnx

import afflow
from afflow.training import Stream, read_parquet

pyarrow = pytest.importorskip("pyarrow")
KEY = jax.random.key(0)
OPTIONS = {"key": KEY, "validation": 0, "max_epochs": 1, "progress": False}


def write(path, first, size, group=10):
    """Write rows numbered from `first`; every column can be told from the number."""
    import pyarrow.parquet as pq

    number = np.arange(first, first + size)
    columns = {"w": number + 0.25, "a": number, "b": -number.astype(np.float32), "h": number / 2}
    pq.write_table(pyarrow.table(columns), path, row_group_size=group)
    return path


@pytest.fixture(name="files")
def make_files(tmp_path):
    return [write(tmp_path / "one.parquet", 0, 47), write(tmp_path / "two.parquet", 47, 33)]


def test_an_epoch_visits_every_row_once(files):
    stream = read_parquet(files, 8, columns=["a"], num_groups=3)
    epochs = [np.concatenate(list(stream.make(epoch)))[:, 0] for epoch in (0, 1, 0)]
    assert stream.num_steps == 10
    for epoch in epochs:
        assert sorted(epoch) == list(range(80))
    assert (epochs[0] == epochs[2]).all()
    assert (epochs[0] != epochs[1]).any()
    other = np.concatenate(list(read_parquet(files, 8, columns=["a"], seed=1).make(0)))[:, 0]
    assert (epochs[0] != other).any()


def test_a_remainder_is_left_out_once_an_epoch(files):
    stream = read_parquet(files, 9, columns=["a"], num_groups=2)
    batches = list(stream.make(0))
    assert len(batches) == stream.num_steps == 8
    assert max(Counter(np.concatenate(batches)[:, 0]).values()) == 1


def test_rows_of_groups_and_files_are_mixed(files):
    stream = read_parquet(files, 80, columns=["a"])
    (x,) = stream.make(0)
    assert np.abs(np.diff(x[:, 0])).mean() > 10  # 1 in the order of the files, 27 at random


def test_columns_contexts_and_weights_stay_together(files):
    for x, context, weights in read_parquet(files, 8, context=["h"], weights="w").make(0):
        assert x.shape == (8, 2)
        assert (x[:, 0] == -x[:, 1]).all()
        assert (context[:, 0] == x[:, 0] / 2).all()
        assert (weights == x[:, 0] + 0.25).all()
    x, context = next(iter(read_parquet(files[0], 8, columns=["b"], context=["a", "h"]).make(0)))
    assert (context == np.stack([-x[:, 0], -x[:, 0] / 2], -1)).all()


def test_a_flow_is_fitted_to_files(files):
    flow = afflow.Flow(afflow.Normal(1), afflow.Elementwise(afflow.Affine(), 1))
    _, history = afflow.fit(flow, read_parquet(files, 8, columns=["h"]), **OPTIONS)
    assert np.isfinite(history.train).all()


def test_unusable_files_are_refused(files, tmp_path):
    with pytest.raises(ValueError, match=r"columns among \['w', 'a', 'b', 'h'\], got \['c'\]"):
        read_parquet(files, 8, columns=["a", "c"])
    with pytest.raises(ValueError, match="at least 81 rows"):
        read_parquet(files, 81)
    with pytest.raises(ValueError, match="one or more Parquet files"):
        read_parquet([], 8)
    with pytest.raises(ValueError, match="num_groups"):
        read_parquet(files, 8, num_groups=0)
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.table({"a": [1.0, None, 2.0]}), tmp_path / "holes.parquet")
    with pytest.raises(ValueError, match="finite numbers in column a.*group 0"):
        next(iter(read_parquet(tmp_path / "holes.parquet", 2).make(0)))


def test_a_loader_of_grain_is_a_stream():
    grain = pytest.importorskip("grain")
    rows = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)

    def make(epoch):
        return iter(grain.MapDataset.source(rows).shuffle(seed=epoch).batch(16))

    flow = afflow.maf(2, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0))
    _, history = afflow.fit(flow, Stream(make, num_steps=4), **OPTIONS)
    np.testing.assert_allclose(history.train[0], -flow.log_prob(rows).mean(), rtol=0.05)
