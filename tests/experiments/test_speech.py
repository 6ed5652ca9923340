"""The spoken digits: the recipe of the data set, the windows, the scores and a small run."""

import json
import wave
from functools import partial

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import speech  # noqa: E402
from datasets.speech import CODEC, Recordings, cut_evenly, spoken_digits  # noqa: E402
from measuring.bits import score_counts, summarize, summarize_groups  # noqa: E402
from registry import randomize  # noqa: E402

RATE = 8000
INDICES = (0, 4, 5, 10, 44, 45, 49)  # two of each part, and 10, whose name comes before that of 5
SIZE = 10 * 2 * len(INDICES)


def make_recordings(seed=0):
    """Return the samples of recordings by digit, speaker and index, in the order of file names."""
    rng = np.random.default_rng(seed)
    names = [(d, s, i) for d in range(10) for s in ("ann", "bob") for i in INDICES]
    return {
        name: rng.integers(-(2**15), 2**15, rng.integers(150, 500)).astype(np.int16)
        for name in sorted(names, key=lambda name: "_".join(map(str, name)))
    }


def write_packed(folder, recordings):
    """Write recordings as one file with all samples in one array."""
    (folder / "fsdd").mkdir()
    digit, speaker, index = map(np.array, zip(*recordings, strict=True))
    np.savez(
        folder / "fsdd" / "fsdd.npz",
        samples=np.concatenate(list(recordings.values())),
        offset=np.cumsum([0, *map(len, recordings.values())]),
        digit=digit.astype(np.uint8),
        speaker=speaker,
        index=index,
    )


def write_wave(path, samples, rate=RATE, channels=1):
    """Write the samples of a recording as a file of 16 bits."""
    path.parent.mkdir(exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, rate, 0, "NONE", "not compressed"))
        file.writeframes(samples.astype("<i2").tobytes())


def write_waves(folder, recordings):
    """Write recordings as the published files."""
    for name, samples in recordings.items():
        write_wave(folder / "recordings" / f"{'_'.join(map(str, name))}.wav", samples)


@pytest.mark.parametrize("write", [write_packed, write_waves])
def test_spoken_digits_are_split_by_index_and_sorted(tmp_path, write):
    recordings = make_recordings()
    write(tmp_path, recordings)
    indices = {"train": (5, 10, 44), "validation": (45, 49), "test": (0, 4)}
    for part, got in spoken_digits(tmp_path, SIZE)._asdict().items():
        names = [(d, s, i) for d in range(10) for s in ("ann", "bob") for i in indices[part]]
        assert got.digits.tolist() == [name[0] for name in names]
        assert got.speakers.tolist() == [name[1] for name in names]
        for symbols, name in zip(got.symbols, names, strict=True):
            assert symbols.dtype == np.uint8
            np.testing.assert_array_equal(symbols, CODEC.encode(recordings[name] / 32768))


def test_another_number_of_recordings_is_an_error(tmp_path):
    write_waves(tmp_path, make_recordings())
    with pytest.raises(ValueError, match="Expected 3000 recordings in recordings, got 140"):
        spoken_digits(tmp_path)
    with pytest.raises(FileNotFoundError, match="free-spoken-digit-dataset"):
        spoken_digits(tmp_path / "fsdd")


def test_other_files_are_errors(tmp_path):
    samples = np.zeros(9, np.int16)
    for folder, name, options, message in [
        ("name", "3_ann.wav", {}, "_{index}.wav, got 3_ann.wav"),
        ("digit", "x_ann_1.wav", {}, "_{index}.wav, got x_ann_1.wav"),
        ("rate", "3_ann_1.wav", {"rate": 16000}, "3_ann_1.wav, got 16000 of 16 bits in 1"),
        ("channels", "3_ann_1.wav", {"channels": 3}, "got 8000 of 16 bits in 3"),
    ]:
        (tmp_path / folder).mkdir()
        write_wave(tmp_path / folder / "recordings" / name, samples, **options)
        with pytest.raises(ValueError, match=message):
            spoken_digits(tmp_path / folder)


@pytest.mark.parametrize("size", [3, 20, 24, 25, 26, 40, 44, 46, 61])
def test_windows_lie_within_a_recording_and_cover_it(size):
    others = [np.full(30, 200, np.uint8)]
    rows, owners = cut_evenly([*others, np.arange(size), *others], 20)
    assert np.all(np.diff(owners) >= 0)
    rows = rows[owners == 1]
    seen = rows[np.isfinite(rows)]
    assert set(seen) <= set(range(size))
    assert rows[0, 0] == 0
    assert size - len(set(seen)) <= 5  # a quarter of a window
    if len(rows) > 1:
        assert rows[-1, -1] == size - 1
    for row in rows:
        np.testing.assert_array_equal(np.diff(row[np.isfinite(row)]), 1)
        assert np.isfinite(row).sum() == min(size, 20)


def test_a_score_is_the_log_probability_of_each_whole_recording(monkeypatch):
    monkeypatch.setattr(speech, "STEP", 10)
    rng = np.random.default_rng(0)
    model = randomize(speech.build(speech.Config(channels=3, stacks=1, layers=3, length=7), 12))
    symbols = [rng.integers(0, 256, size).astype(np.uint8) for size in (3, 10, 11, 25, 20, 8)]
    names = np.array(["ann", "bob"])
    contexts = speech.make_context(np.arange(6), names[[0, 1, 1, 0, 1, 0]], names)
    assert contexts.sum(1).tolist() == [2] * 6
    got = speech.score(model, symbols, contexts)
    for bits, row, context in zip(got, symbols, contexts, strict=True):
        expected = -model.with_length(len(row)).log_prob(row, context) / np.log(2)
        np.testing.assert_allclose(bits, expected, rtol=1e-6)


def test_counts_and_summaries():
    train, test = [np.array([0, 0, 1, 0])], [np.array([0, 1]), np.array([1])]
    got = score_counts(train, test, 2)
    p = np.array([4, 2]) / 6  # one more than the counts
    order_0 = -np.log2([p[0] * p[1], p[1]])
    order_1 = -np.log2([p[0] * 2 / 4, p[1]])
    assert got["order_0"]["bits_per_sample"] == pytest.approx(order_0.sum() / 3)
    assert got["order_1"]["bits_per_sample"] == pytest.approx(order_1.sum() / 3)
    groups = summarize_groups(order_0, test, np.array([7, 8]))
    assert groups[8] == {"bits_per_sample": pytest.approx(np.log2(3)), "standard_error": 0}
    same = summarize(np.array([4.0, 2.0]), test)
    assert same == {"bits_per_sample": 2, "standard_error": 0}


def test_a_small_run_writes_scores_sounds_and_a_picture(tmp_path, monkeypatch):
    write_packed(tmp_path, make_recordings())
    monkeypatch.setattr(speech, "spoken_digits", partial(spoken_digits, size=SIZE))
    monkeypatch.setattr(speech, "keep_programs", lambda: None)
    config = speech.Config(
        channels=4,
        stacks=1,
        layers=2,
        speaker=True,
        length=200,
        epochs=1,
        duration=300,
        max_recordings=20,
        data_dir=tmp_path,
        out=tmp_path / "out",
        runs=tmp_path / "runs",
    )
    speech.main(config)
    results = json.loads((config.out / "digit_and_speaker.json").read_text())["results"]
    assert 7.5 < results["test"]["bits_per_sample"] < 8.5  # white noise has 8 bits at most
    assert list(results["test_by_digit"]) == list(map(str, range(10)))
    assert len(results["train"]) == len(results["validation"]) == 1
    assert (config.out / "digit_and_speaker.png").stat().st_size > 10_000
    for digit in range(10):
        with wave.open(str(config.out / f"digit_and_speaker_{digit}.wav")) as file:
            assert (file.getframerate(), file.getnframes(), file.getsampwidth()) == (RATE, 300, 2)


def test_a_thin_part_has_every_digit():
    digits = np.repeat(np.arange(10), 6)
    part = Recordings([np.full(3, i) for i in range(60)], digits, digits.astype(str))
    thin = speech.thin(part, 10)
    assert thin.digits.tolist() == list(range(10))
    assert [digits[row[0]] for row in thin.symbols] == list(range(10))
    assert len(speech.thin(part, None).symbols) == len(speech.thin(part, 99).symbols) == 60
