"""Characters and byte pairs."""

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afflow.codecs import Alphabet, BytePairs

RHYME = "Peter Piper picked a peck of pickled peppers.\nA peck of pickled peppers he picked.\n" * 9
PAIRS = BytePairs.learn(RHYME, 300)
any_text = st.text(st.characters(codec="utf-8"))


def test_a_symbol_is_the_place_in_the_alphabet():
    alphabet = Alphabet("zaé𝄞")
    symbols = alphabet.encode("a𝄞zé")
    assert symbols.tolist() == [1, 3, 0, 2]
    assert alphabet.decode(symbols) == "a𝄞zé"


@given(st.text(min_size=1))
def test_any_text_is_spelled_by_its_alphabet(text):
    alphabet = Alphabet.of(text)
    assert alphabet.characters == "".join(sorted(set(text)))
    assert alphabet.encode(text).tolist() == [alphabet.characters.index(c) for c in text]
    assert alphabet.decode(alphabet.encode(text)) == text


def test_half_a_surrogate_pair_is_a_character():
    assert Alphabet("\ud800a").decode(Alphabet("\ud800a").encode("a\ud800")) == "a\ud800"


@pytest.mark.parametrize("unknown", ["b", "\x00", "d", "𝄞"])  # between, below and above all
def test_an_unknown_character_is_an_error(unknown):
    with pytest.raises(ValueError, match=f"{unknown!r} at position 2".replace("\\", r"\\")):
        Alphabet("ac").encode(f"ac{unknown}a")


@pytest.mark.parametrize("characters", ["", "aba", ["a", "b"]])
def test_characters_that_are_no_alphabet(characters):
    with pytest.raises(ValueError, match="characters"):
        Alphabet(characters)


def test_many_characters_have_a_larger_type():
    alphabet = Alphabet("".join(map(chr, range(1000, 1257))))
    assert alphabet.encode(alphabet.characters).dtype == np.uint16


@given(any_text)
def test_byte_pairs_keep_every_text(text):
    assert PAIRS.decode(PAIRS.encode(text)) == text


def test_frequent_strings_are_short():
    assert len(PAIRS.encode(RHYME)) < len(RHYME) / 2
    assert len(PAIRS.encode("𝄞")) == 4  # new: one symbol for each byte of UTF-8


def test_the_first_pair_is_the_most_frequent():
    codec = BytePairs.learn("ab abc abd xy", 257)
    a, b = (int(codec.encode(letter)[0]) for letter in "ab")
    assert codec.encode("ab").tolist() == [256]
    assert codec.encode("ba").tolist() == [b, a]


def test_the_symbols_of_bytes():
    codec = BytePairs.learn("", 256)
    assert codec.num_values == 256
    assert sorted(codec.encode("".join(map(chr, range(128)))).tolist()) == sorted(
        {int(codec.encode(chr(i))[0]) for i in range(128)}
    )


def test_a_short_text_has_few_pairs():
    assert BytePairs.learn("xyz", 1000).num_values == 256
    assert 256 < BytePairs.learn("xyz xyz", 1000).num_values < 262


def test_bytes_that_are_no_character_are_replaced():
    assert PAIRS.decode(PAIRS.encode("a𝄞")[:-1]) == "a\ufffd"


def test_byte_pairs_in_a_file(tmp_path):
    PAIRS.save(tmp_path / "pairs.json")
    found = BytePairs.load(tmp_path / "pairs.json")
    assert found == PAIRS
    np.testing.assert_array_equal(found.encode(RHYME), PAIRS.encode(RHYME))
    assert "Peter" not in repr(found)


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}'])
def test_a_damaged_file_is_an_error(tmp_path, content):
    (tmp_path / "pairs.json").write_text(content)
    with pytest.raises(ValueError, match="Expected the JSON of byte pairs"):
        BytePairs.load(tmp_path / "pairs.json")
    with pytest.raises(FileNotFoundError):
        BytePairs.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"add_prefix_space":false', '"add_prefix_space":true'),
        ('"normalizer":null', '"normalizer":{"type":"Lowercase"}'),
        ('"normalizer":null', '"normalizer":{"type":"NFC"}'),
    ],
)
def test_a_tokenizer_that_changes_text_is_an_error(old, new):
    assert old in PAIRS.description
    with pytest.raises(ValueError, match="changes text"):
        BytePairs(PAIRS.description.replace(old, new))


def test_texts_that_byte_pairs_refuse():
    with pytest.raises(ValueError, match="position 1"):
        PAIRS.encode("a\ud800")
    with pytest.raises(ValueError, match="str as text"):
        PAIRS.encode(["a"])
    with pytest.raises(ValueError, match="num_values >= 256"):
        BytePairs.learn("abc", 255)


def test_missing_tokenizers_says_how_to_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'afflow\[text\]'"):
        BytePairs.learn("abc", 256)
