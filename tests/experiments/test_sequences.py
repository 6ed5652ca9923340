"""The sequences of the experiments: texts, chorales and piano rolls, and scores by windows."""

import gzip
import json

import numpy as np
import pytest
from datasets.music import chorales, padded, piano_rolls
from datasets.text import BLOCK, tiny_shakespeare
from flax import nnx
from recipes.sequences import score_by_windows
from registry import randomize

import afflow

SIZES = {"train": 229, "valid": 76, "test": 77}


def test_a_text_is_cut_into_three_parts(tmp_path):
    rng = np.random.default_rng(0)
    letters = np.array(list("".join(chr(48 + i) for i in range(65))))
    text = "".join(letters[np.append(np.arange(65), rng.integers(0, 65, 1_115_394 - 65))])
    (tmp_path / "input.txt").write_text(text)
    found = tiny_shakespeare(tmp_path)
    train, validation, test = (found.alphabet.decode(part) for part in found.symbols)
    assert test == text[-111_539:]
    assert train[: 19 * BLOCK] == text[: 19 * BLOCK]
    assert validation[:BLOCK] == text[19 * BLOCK : 20 * BLOCK]
    assert len(train) + len(validation) + len(test) == len(text)
    (tmp_path / "input.txt").write_text(text[1:])
    with pytest.raises(ValueError, match="1,115,394 characters"):
        tiny_shakespeare(tmp_path)


@pytest.mark.parametrize("name", ["jsb-chorales-16th.json", "jsb-chorales-16th.json.gz"])
def test_chorales_have_four_symbols_for_each_chord(tmp_path, name):
    piece = [[81, 60, 48, 36], [70, 60], []]
    content = json.dumps({part: [piece] * size for part, size in SIZES.items()}).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    pieces = chorales(tmp_path)
    assert list(map(len, pieces)) == [229, 76, 77]
    expected = [46, 25, 13, 1, 35, 25, 0, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(pieces.train[5], expected)
    content = json.dumps({part: [[[82]]] * size for part, size in SIZES.items()}).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(ValueError, match="pitches from 36 to 81, got 82"):
        chorales(tmp_path)


def test_piano_rolls_are_padded_by_nan(tmp_path):
    from scipy.io import savemat

    rng, parts = np.random.default_rng(0), {}
    for part, size in SIZES.items():
        rolls = np.empty((1, size), object)
        for i in range(size):
            rolls[0, i] = rng.integers(0, 2, (3 + i % 2, 88)).astype(np.uint8)
        parts[f"{part}data"] = rolls
    savemat(tmp_path / "JSB_Chorales.mat", parts)
    pieces = piano_rolls("jsb", tmp_path)
    np.testing.assert_array_equal(pieces.validation[1], parts["validdata"][0, 1])
    rows = padded(pieces.test[:2])
    assert (rows.shape, np.isnan(rows).sum()) == ((2, 4, 88), 88)
    with pytest.raises(ValueError, match="Expected one of"):
        piano_rolls("pop", tmp_path)


@pytest.mark.parametrize("size", [4, 7, 8, 9, 23])
def test_windows_score_every_symbol_once(size):
    """Windows of a chain of order one miss nothing of the past that matters."""
    chain = randomize(afflow.conditioners.Markov(8, 3, 1), 1.0)
    model = afflow.AutoregressiveModel(chain, afflow.conditionals.Categorical(3))
    symbols = np.random.default_rng(0).integers(0, 3, size).astype(np.uint8)
    expected = model.with_length(size).log_conditionals(symbols)
    np.testing.assert_allclose(score_by_windows(model, symbols), expected, rtol=1e-6)


def test_windows_count_their_second_half():
    network = afflow.conditioners.Recurrent(8, 3, (4,), features=3, rngs=nnx.Rngs(0))
    model = afflow.AutoregressiveModel(randomize(network), afflow.conditionals.Categorical(3))
    symbols = np.random.default_rng(0).integers(0, 3, 14)
    found = score_by_windows(model, symbols)
    np.testing.assert_allclose(found[:8], model.log_conditionals(symbols[:8]), rtol=1e-6)
    second = model.log_conditionals(symbols[4:12])
    np.testing.assert_allclose(found[8:12], second[4:], rtol=1e-6)
    last = model.log_conditionals(symbols[6:])
    np.testing.assert_allclose(found[12:], last[6:], rtol=1e-6)
