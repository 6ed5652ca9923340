"""The recipes of the data sets, on tiny files in the published formats."""

import gzip
import io
import sys
import tarfile

import datasets
import numpy as np
import pytest
from datasets import Split, files
from datasets.binary import Published
from datasets.mnist import bits_per_dim, mnist_digits

RNG = np.random.default_rng(0)


def write(path, content):
    """Write `content` to `path`, and create the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def table(rows, separator=" ", header=""):
    """Return rows as text with a separator and an optional header."""
    lines = [separator.join(map(repr, map(float, row))) for row in rows]
    return "\n".join([header, *lines] if header else lines) + "\n"


# POWER


def household(minutes=60):
    """Return values of the power data, the scale of each column, and a mask of missing rows."""
    scale = np.array([1000, 1000, 100, 10, 1, 1, 1])
    return RNG.integers(0, 5000, (minutes, 7)), scale, np.arange(minutes) % 6 == 4


def household_text(values, scale, missing):
    """Return the power data in the published text format."""
    lines = ["Date;Time;Global_active_power;..."]
    for minute, row in enumerate(values / scale):
        clock = f"{(17 + (24 + minute) // 60) % 24:02}:{(24 + minute) % 60:02}:00"
        cells = ["?"] * 6 + [""] if missing[minute] else [f"{value:.3f}" for value in row]
        lines.append(";".join(["16/12/2006", clock, *cells]))
    return "\n".join(lines) + "\n"


def household_packed(values, scale, missing):
    """Return the power data as a packed `npz` file."""
    names = [f"column{i}" for i in range(7)]
    columns = dict(zip(names, values.T.astype(np.uint16), strict=True))
    file = io.BytesIO()
    start, bits = "2006-12-16 17:24:00", np.packbits(missing)
    np.savez(file, start=start, n=len(values), missing=bits, columns=names, scale=scale, **columns)
    return file.getvalue()


def published_power(values, scale, missing):
    """Compute the splits of the power data by the published preprocessing, line by line."""
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


def household_table(values, scale, missing):
    """Return the complete rows of the power data as an `npy` file, with the minute of the day."""
    minutes = (17 * 60 + 24 + np.arange(len(values))) % 1440
    file = io.BytesIO()
    np.save(file, np.column_stack([values / scale, minutes])[~missing])
    return file.getvalue()


POWER_FILES = {
    "data.npy": household_table,
    "household_power_consumption.txt": household_text,
    "household_power.npz": household_packed,
}


@pytest.mark.parametrize("name", POWER_FILES)
def test_power_follows_the_published_recipe(tmp_path, name):
    meter = household()
    write(tmp_path / "power" / name, POWER_FILES[name](*meter))
    got = datasets.power(tmp_path, (41, 4, 5))
    for part, expected in zip(got, published_power(*meter), strict=True):
        assert part.dtype == np.float32
        np.testing.assert_allclose(part, expected, atol=1e-5)


def test_an_incomplete_file_is_an_error(tmp_path):
    write(tmp_path / "power/household_power.npz", household_packed(*household()))
    with pytest.raises(ValueError, match=r"Expected POWER .*.1659917, 6.*, got .*.41, 6"):
        datasets.power(tmp_path)


# Files


def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="archive.ics.uci.edu") as error:
        datasets.power(tmp_path)
    assert str(tmp_path / "power/data.npy") in str(error.value)


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
    train[:6, 1], train[:6, 2], train[:5, 3] = -1, 99, -1  # column 1 alone is too often smallest
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
    train[:12, 5] = -9.0  # six of these rows are signal
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
    """Return images or labels in the format of the MNIST files."""
    return np.array([2048 + images.ndim, *images.shape], ">i4").tobytes() + images.tobytes()


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


def test_mnist_digits(tmp_path):
    digits = RNG.integers(0, 10, 12).astype(np.uint8)
    write(tmp_path / "mnist/train-labels-idx1-ubyte.gz", gzip.compress(idx(digits[:9])))
    write(tmp_path / "mnist/t10k-labels-idx1-ubyte", idx(digits[9:]))
    got = mnist_digits(tmp_path, (7, 2, 3))
    assert list(map(len, got)) == [7, 2, 3]
    np.testing.assert_array_equal(np.concatenate(got), digits)
    with pytest.raises(ValueError, match="labels of mnist"):
        mnist_digits(tmp_path)
    write(
        tmp_path / "mnist/t10k-labels-idx1-ubyte", idx(digits[9:]).replace(b"\x08\x01", b"\x08\x03")
    )
    with pytest.raises(ValueError, match="Expected an IDX file with 1 axes"):
        mnist_digits(tmp_path, (7, 2, 3))


def test_the_uniform_density_takes_eight_bits():
    p = RNG.uniform(1e-6, 1 - 1e-6, (4000, 20))
    x = np.log(p) - np.log1p(-p)
    log_probs = np.sum(np.log(p) + np.log1p(-p), 1)  # the logistic distribution
    assert abs(bits_per_dim(log_probs, x) - 8) < 1e-5


def test_a_file_that_is_not_of_images_is_an_error(tmp_path):
    for part in ("train", "t10k"):
        write(tmp_path / f"mnist/{part}-images-idx3-ubyte", idx(np.zeros((2, 28, 28), "u1"))[:-1])
    with pytest.raises(ValueError, match="Expected an IDX file"):
        datasets.mnist(tmp_path)


def striped(path, axes):
    """Write a tar file of JPEGs, each with a steep gradient along one axis."""
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, axis in enumerate(axes):
            levels = (8 * np.indices((16, 24))[axis]).astype(np.uint8)
            file = io.BytesIO()
            image.fromarray(np.stack([levels] * 3, -1)).save(file, "JPEG", quality=100)
            entry = tarfile.TarInfo(f"images/{number}.jpg")
            entry.size = file.tell()
            tar.addfile(entry, io.BytesIO(file.getvalue()))


def directions(patches):
    """Return the set of axes along which patches of mean zero rise by 8 levels per pixel."""
    whole = np.column_stack([patches, -patches.sum(1)]).reshape(-1, 8, 8)
    rises = 256 * np.array([np.diff(whole, axis=axis).mean((1, 2)) for axis in (1, 2)])
    assert np.allclose(np.sort(rises, 0), [[0], [8]], atol=0.6)
    return set(rises.argmax(0))


def test_bsds300(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["datasets.bsds300"], "HELD_OUT", 1)
    striped(tmp_path / "bsds300/BSDS300_images_train.tar", (0, 1))
    striped(tmp_path / "bsds300/BSDS300_images_test.tar", (1, 1))
    train, validation, test = datasets.bsds300(tmp_path, (60, 40, 50))
    assert directions(train) | directions(validation) == {0, 1}  # no image in both
    assert len(directions(train)) == len(directions(validation)) == 1
    assert directions(test) == {1}


# Binary data sets and the data sets of RNADE


@pytest.fixture
def bits(monkeypatch):
    """Return small splits, and register their sizes as the published sizes."""
    for name in ("adult", "binarized_mnist"):
        monkeypatch.setitem(datasets.BINARY, name, Published(5, 4, 2, 3))
    return Split(*(RNG.integers(0, 2, (size, 5)).astype(np.uint8) for size in (4, 2, 3)))


TEXTS = {
    "adult": ("adult/adult.{}.data", ","),
    "binarized_mnist": ("binarized_mnist/binarized_mnist_{}.amat", " "),
}


@pytest.mark.parametrize("name", TEXTS)
def test_binary_texts(tmp_path, bits, name):
    path, separator = TEXTS[name]
    for part, rows in zip(("train", "valid", "test"), bits, strict=True):
        lines = [separator.join(map(str, row)) for row in rows]
        write(tmp_path / path.format(part), "\n".join(lines) + "\n")
    for got, expected in zip(datasets.binary(name, tmp_path), bits, strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("path", ["nade_uci/adult", "binarized_mnist/binarized_mnist_packed"])
def test_packed_bits(tmp_path, bits, path):
    file, parts = io.BytesIO(), dict(zip(("train", "valid", "test"), bits, strict=True))
    np.savez(file, **{part: np.packbits(rows, axis=1) for part, rows in parts.items()})
    write(tmp_path / f"{path}.npz", file.getvalue())
    name = "adult" if "adult" in path else "binarized_mnist"
    for got, expected in zip(datasets.binary(name, tmp_path), bits, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_digits_need_no_file():
    pytest.importorskip("sklearn")
    got = datasets.binary("digits")
    assert [part.shape for part in got] == [(1257, 64), (180, 64), (360, 64)]
    assert 0.3 < np.concatenate(got).mean() < 0.35
    for levels, bits in zip(datasets.digits(), got, strict=True):
        np.testing.assert_array_equal(levels >= 8, bits)
        assert 0 <= levels.min() < levels.max() < 17


@pytest.mark.parametrize("load", [datasets.binary, datasets.rnade])
def test_an_unknown_name_is_an_error(load):
    with pytest.raises(ValueError, match="Expected one of .*, got 'iris'"):
        load("iris")


@pytest.mark.parametrize("header", [False, True])
def test_rnade(tmp_path, monkeypatch, header):
    rows = RNG.normal(size=(20, 12))
    rows[:, 4] = 3 * rows[:, 6] + 1
    text = table(rows, ";", '"fixed acidity";"volatile acidity"') if header else table(rows, ",")
    write(tmp_path / "rnade_uci/winequality-red.csv", text)
    source = datasets.RNADE["red_wine"]._replace(shape=(20, 10))
    monkeypatch.setitem(datasets.RNADE, "red_wine", source)
    got = datasets.rnade("red_wine", tmp_path)
    np.testing.assert_array_equal(got, np.delete(rows[:, :11], 4, axis=1))
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"Expected red_wine .*, got .20, 10."):
        datasets.rnade("red_wine", tmp_path)


def members(size, number):
    """Return the test rows of fold `number`, recovered from standardised row numbers."""
    ids = np.arange(size, dtype=float)[:, None]
    train, test = datasets.fold(ids, number)
    step = np.diff(np.sort(np.concatenate([train, test])[:, 0])).mean()
    low = np.concatenate([train, test]).min()
    return np.rint((test[:, 0] - low) / step).astype(int)


def test_each_row_is_tested_on_in_one_fold_of_ten():
    x = RNG.normal(size=(53, 3)) * 4 + 7
    tested = [members(53, number) for number in range(10)]
    assert sorted(np.concatenate(tested)) == list(range(53))
    for number in range(10):
        train, test = datasets.fold(x, number)
        np.testing.assert_allclose(train.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(train.std(0), 1)
        assert len(train) + len(test) == 53
        assert len(test) in (5, 6)
    with pytest.raises(ValueError, match="Expected a fold from 0 to 9, got 10"):
        datasets.fold(x, 10)
