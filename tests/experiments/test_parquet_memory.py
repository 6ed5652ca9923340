"""The experiment on the memory of Parquet files: one small file."""

import numpy as np
import pytest

pytest.importorskip("pyarrow")
pytest.importorskip("tyro")

import parquet_memory  # noqa: E402


def test_a_small_file_is_written_and_fitted(tmp_path):
    path = tmp_path / "rows.parquet"
    size = parquet_memory.write(path, 0.001, np.random.default_rng(0))
    assert 0.9 < size / (4 * parquet_memory.DIM * parquet_memory.GROUP) < 1.1
    config = parquet_memory.Config(batch_size=2**16)
    assert parquet_memory.measure(config, path) > 10 * size
