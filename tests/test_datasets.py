"""The data sets' recipes, on tiny files in their published formats."""

import gzip
import io
import tarfile

import numpy as np
import pytest

import datasets
from datasets import binary, bsds300, files, rnade

RNG = np.random.default_rng(0)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def table(rows, separator=" ", header=""):
    lines = [separator.join(map(repr, map(float, row))) for row in rows]
    return "\n".join([header, *lines] if header else lines) + "\n"


# POWER


def household(minutes=60):
    """Return a table of the meter's columns, and which of its rows are missing."""
    scale = np.array([1000, 1000, 100, 10, 1, 1, 1])
    return RNG.integers(0, 5000, (minutes, 7)), scale, np.arange(minutes) % 6 == 4


def household_text(values, scale, missing):
    lines = ["Date;Time;Global_active_power;..."]
    for minute, row in enumerate(values / scale):
        clock = f"{(17 + (24 + minute) // 60) % 24:02}:{(24 + minute) % 60:02}:00"
        cells = ["?"] * 6 + [""] if missing[minute] else [f"{value:.3f}" for value in row]
        lines.append(";".join(["16/12/2006", clock, *cells]))
    return "\n".join(lines) + "\n"


def household_packed(values, scale, missing):
    names = [f"column{i}" for i in range(7)]
    columns = dict(zip(names, values.T.astype(np.uint16), strict=True))
    file = io.BytesIO()
    start, bits = "2006-12-16 17:24:00", np.packbits(missing)
    np.savez(file, start=start, n=len(values), missing=bits, columns=names, scale=scale, **columns)
    return file.getvalue()


def published_power(values, scale, missing):
    """Follow the published preprocessing line by line."""
    minutes = (17 * 60 + 24 + np.arange(len(values))) % 1440
    data = np.column_stack([values / scale, minutes])[~missing]
    rng = np.random.RandomState(42)
    rng.shuffle(data)
    data = np.delete(np.delete(data, 3, axis=1), 1, axis=1)
    data[:, 1:2] += 0.01 * rng.rand(len(data), 1)
    data[:, 0:1] += 0.001 * rng.rand(len(data), 1)
    data[:, 2:5] += rng.rand(len(data), 3)
    rest = data[: -int(0.1 * len(data))]
    data = (data - rest.mean(0)) / rest.std(0)
    return data[:41], data[41:45], data[45:]


@pytest.mark.parametrize("packed", [False, True])
def test_power_follows_the_published_recipe(tmp_path, packed):
    meter = household()
    name = "household_power.npz" if packed else "household_power_consumption.txt"
    write(tmp_path / "power" / name, (household_packed if packed else household_text)(*meter))
    got = datasets.power(tmp_path, (41, 4, 5))
    for part, expected in zip(got, published_power(*meter), strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, expected, atol=1e-5)


def test_an_incomplete_file_is_an_error(tmp_path):
    write(tmp_path / "power/household_power.npz", household_packed(*household()))
    with pytest.raises(ValueError, match=r"Expected POWER with .*\(1659917, 6\).*, got \[\(41, 6\)"):
        datasets.power(tmp_path)


# Files


def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="archive.ics.uci.edu") as error:
        datasets.power(tmp_path)
    assert str(tmp_path / "power/household_power_consumption.txt") in str(error.value)


def test_the_folder_is_an_argument_or_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv("AFFLOW_DATA", raising=False)
    with pytest.raises(ValueError, match="--data-dir or set AFFLOW_DATA"):
        datasets.power()
    monkeypatch.setenv("AFFLOW_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        datasets.power()


def test_columns_that_say_the_same_go_the_first_first():
    a, b = RNG.normal(size=(2, 50))
    rows = np.column_stack([a, b, -a, a + 1e-3 * b, b + 1e-3 * a])
    np.testing.assert_array_equal(files.uncorrelated(rows), rows[:, 2:])


def test_columns_that_repeat_their_smallest_value_go():
    train = np.arange(40.0).reshape(8, 5)
    train[:6, 1], train[:6, 2], train[:5, 3] = -1, 99, -1  # only the first is too often smallest
    kept, other = files.without_repeats(train, train[:2])
    np.testing.assert_array_equal(kept, train[:, [0, 2, 3, 4]])
    assert other.shape == (2, 4)


# GAS, HEPMASS, MINIBOONE


def test_gas(tmp_path):
    sensors = RNG.normal(size=(100, 9)) * 3 + 1
    sensors[:, 4] = 2 * sensors[:, 7]
    table = np.column_stack([RNG.normal(size=(100, 3)), sensors])
    file = io.BytesIO()
    np.save(file, table)
    write(tmp_path / "gas/ethylene_CO.npy", file.getvalue())
    got = datasets.gas(tmp_path, (81, 9, 10))
    kept = np.delete(sensors, 4, axis=1)
    expected = (kept - kept.mean(0)) / kept.std(0, ddof=1)
    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-5)


def test_hepmass(tmp_path):
    train, test = RNG.normal(size=(60, 23)), RNG.normal(size=(40, 24))
    train[:, 0], test[:, 0] = np.arange(60) % 2, np.arange(40) % 2
    train[:12, 5] = -9.0  # six of them signal
    write(tmp_path / "hepmass/1000_train.csv", table(train, ",", "label,f0"))
    write(tmp_path / "hepmass/1000_test.csv", table(test, ",", "label,f0"))
    got = datasets.hepmass(tmp_path, (27, 3, 20))
    columns = [*range(1, 5), *range(6, 23)]
    signal = train[1::2][:, columns]
    mean, std = signal.mean(0), signal.std(0, ddof=1)
    np.testing.assert_allclose(np.concatenate(got[:2]), (signal - mean) / std, atol=1e-5)
    np.testing.assert_allclose(got.test, (test[1::2][:, columns] - mean) / std, atol=1e-5)


def test_miniboone(tmp_path):
    rows = RNG.normal(size=(70, 50))
    rows[3, 0] = -999
    rows[:9, 40:47] = -5.0
    write(tmp_path / "miniboone/MiniBooNE_PID.txt", table(rows, "  ", " 51 19"))
    got = datasets.miniboone(tmp_path, (41, 4, 5))
    signal = np.delete(np.delete(rows[:51], 3, 0), np.s_[40:47], 1)
    expected = (signal - signal[:45].mean(0)) / signal[:45].std(0)
    np.testing.assert_allclose(np.concatenate(got), expected, atol=1e-5)


# Images


def idx(images):
    return np.array([2051, *images.shape], ">i4").tobytes() + images.tobytes()


def test_mnist(tmp_path):
    images = RNG.integers(0, 256, (12, 28, 28)).astype(np.uint8)
    write(tmp_path / "mnist/train-images-idx3-ubyte.gz", gzip.compress(idx(images[:9])))
    write(tmp_path / "mnist/t10k-images-idx3-ubyte", idx(images[9:]))
    got = datasets.mnist(tmp_path, (7, 2, 3))
    np.testing.assert_array_equal(np.concatenate(got).reshape(-1, 28, 28), images)
    x = np.concatenate(datasets.mnist_logits(tmp_path, (7, 2, 3))).astype(float)
    levels = 256 * (1 / (1 + np.exp(-x)) - 1e-6) / (1 - 2e-6)
    noise = levels - np.concatenate(got)
    assert -1e-2 < noise.min() < 0.05
    assert 0.95 < noise.max() < 1.01


def test_a_file_that_is_not_of_images_is_an_error(tmp_path):
    for part in ("train", "t10k"):
        write(tmp_path / f"mnist/{part}-images-idx3-ubyte", idx(np.zeros((2, 28, 28), "u1"))[:-1])
    with pytest.raises(ValueError, match="Expected an IDX file"):
        datasets.mnist(tmp_path)


def stripes(image, along):
    """Return a JPEG with a steep gradient along one axis."""
    pil = pytest.importorskip("PIL.Image")
    levels = np.indices((16, 24))[along] * 8
    file = io.BytesIO()
    pil.fromarray(np.stack([levels.astype(np.uint8) + image] * 3, -1)).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_bsds300(tmp_path, monkeypatch):
    monkeypatch.setattr(bsds300_module(), "HELD_OUT", 1)
    for part, axes in {"train": (1, 0, 0), "test": (1, 1)}.items():
        path = tmp_path / f"bsds300/BSDS300_images_{part}.tar"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for image, along in enumerate(axes):
                content = stripes(image, along)
                entry = tarfile.TarInfo(f"{part}/{image}.jpg")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    got = datasets.bsds300(tmp_path, (60, 40, 50))
    for part in got:
        whole = np.column_stack([part, -part.sum(1)]).reshape(-1, 8, 8)  # of mean zero
        steps = [np.abs(np.diff(whole, axis=axis)).mean((1, 2)) for axis in (1, 2)]
        assert set(np.round(np.max(steps, 0) * 256)) <= {7, 8, 9}
        assert np.min(steps, 0).max() < 1 / 256
    horizontal = [np.diff(part.reshape(len(part), -1)[:, :2]).mean() > 0.01 for part in got]
    assert horizontal[0] != horizontal[1] or not horizontal[0]
    assert horizontal[2]


def bsds300_module():
    import importlib

    return importlib.import_module("datasets.bsds300")


# Binary sets and RNADE's


def split_of(dim=5, sizes=(4, 2, 3)):
    return [RNG.integers(0, 2, (size, dim)).astype(np.uint8) for size in sizes]
