"""The contract of all codecs of sequences: numbers of symbols, types, and errors."""

import numpy as np
import pytest

import afflow
from afflow.codecs import Alphabet, BytePairs, MuLaw, Note, Performance

TEXT = "the cat sat on the mat, the cat sat. " * 5
CASES = {
    "alphabet": (Alphabet.of(TEXT), TEXT, 12, np.uint8),
    "byte_pairs": (BytePairs.learn(TEXT, 264), TEXT, 264, np.uint16),
    "mu_law": (MuLaw(), np.linspace(-1, 1, 50), 256, np.uint8),
    "mu_law_16_bits": (MuLaw(2**16), np.linspace(-1, 1, 50), 2**16, np.uint16),
    "performance": (Performance(), [Note(0.0, 1.0, 60, 66)], 388, np.uint16),
}
cases = pytest.mark.parametrize(("codec", "data", "num_values", "dtype"), CASES.values(), ids=CASES)


@cases
def test_symbols_are_small_integers(codec, data, num_values, dtype):
    symbols = codec.encode(data)
    assert codec.num_values == num_values
    assert symbols.dtype == dtype
    assert symbols.max() < num_values


@cases
def test_decoding_and_encoding_keep_symbols(codec, data, num_values, dtype):
    symbols = codec.encode(data)
    np.testing.assert_array_equal(codec.encode(codec.decode(symbols)), symbols)
    np.testing.assert_array_equal(codec.encode(codec.decode(symbols.astype(np.int64))), symbols)


@cases
def test_a_symbol_out_of_range_is_an_error(codec, data, num_values, dtype):
    for wrong in (-1, num_values):
        with pytest.raises(ValueError, match=f"0 to {num_values - 1}, got {wrong} at position 2"):
            codec.decode([0, 1, wrong])


@cases
def test_floats_are_no_symbols(codec, data, num_values, dtype):
    with pytest.raises(ValueError, match="integer type, got float64"):
        codec.decode(np.array([0.0, 1.0]))


@pytest.mark.parametrize("name", ["alphabet", "byte_pairs", "performance"])
def test_a_batch_of_sequences_is_an_error(name):
    with pytest.raises(ValueError, match=r"symbols.shape \(N,\), got \(2, 3\)"):
        CASES[name][0].decode(np.zeros((2, 3), int))


@pytest.mark.parametrize("name", ["alphabet", "byte_pairs", "performance"])
def test_no_symbols(name):
    codec, data, *_ = CASES[name]
    nothing = type(data)()
    assert codec.decode([]) == nothing
    assert codec.encode(nothing).shape == (0,)


def test_a_model_takes_the_symbols():
    codec, data, *_ = CASES["alphabet"]
    stream = afflow.training.cut_windows(codec.encode(data), 16, 4)
    assert next(iter(stream.make(0))).dtype == np.uint8
