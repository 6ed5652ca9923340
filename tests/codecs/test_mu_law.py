"""The mu-law against its formula and known values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afflow.codecs import MuLaw


def compand(x, mu):
    return np.sign(x) * np.log(1 + mu * np.abs(x)) / np.log(1 + mu)


def test_known_values():
    codec = MuLaw()
    np.testing.assert_array_equal(codec.encode(np.array([-1.0, 0.0, 1.0])), [0, 128, 255])
    np.testing.assert_array_equal(codec.encode([-7, 7, np.inf]), [0, 255, 255])  # clipped
    assert codec.decode(np.array([255]))[0] == pytest.approx((256 ** (255 / 256) - 1) / 255)
    assert codec.encode(np.array([1 / 255]))[0] == 128 + 16  # f = ln 2 / ln 256 = 1/8


@pytest.mark.parametrize("levels", [2, 3, 256, 1000, 2**16])
def test_cells_are_equal_after_companding(levels):
    x = np.random.default_rng(0).uniform(-1, 1, 10_000)
    centre = (2 * MuLaw(levels).encode(x).astype(float) + 1) / levels - 1
    assert np.abs(compand(x, levels - 1) - centre).max() <= (1 + 1e-9) / levels


@pytest.mark.parametrize("levels", [2, 3, 256, 2**16])
def test_symbols_stand_for_the_centres_of_cells(levels):
    symbols = np.arange(levels)
    x = MuLaw(levels).decode(symbols)
    centres = (2 * symbols + 1) / levels - 1
    np.testing.assert_allclose(compand(x, levels - 1), centres, atol=1e-12)
    np.testing.assert_allclose(x, -x[::-1], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [2, 3, 255, 256, 2**16])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_every_symbol_survives(kind, levels, dtype):
    codec = MuLaw(levels)
    symbols = kind(np.arange(levels))
    again = codec.encode(codec.decode(symbols).astype(dtype))
    assert isinstance(again, type(symbols))
    np.testing.assert_array_equal(again, symbols)


def test_compiled():
    codec = MuLaw()
    x = jnp.linspace(-1.1, 1.1, 501)
    symbols = jax.jit(codec.encode)(x)
    assert symbols.dtype == jnp.uint8
    np.testing.assert_array_equal(symbols, codec.encode(np.asarray(x)))
    decoded = jax.jit(codec.decode)(symbols)
    np.testing.assert_allclose(decoded, codec.decode(np.asarray(symbols)), rtol=1e-12)


def test_half_precision_is_computed_in_single():
    x = np.linspace(-1, 1, 301).astype(np.float16)
    np.testing.assert_array_equal(MuLaw().encode(x), MuLaw().encode(x.astype(np.float32)))


def test_any_shape():
    symbols = MuLaw().encode(np.zeros((2, 3)))
    assert symbols.shape == MuLaw().decode(symbols).shape == (2, 3)


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_nan_is_an_error(kind):
    with pytest.raises(ValueError, match="got NaN"):
        MuLaw().encode(kind([0.0, np.nan]))


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_samples_in_units_of_the_file_are_an_error(kind):
    with pytest.raises(ValueError, match="got int16 up to 900: divide"):
        MuLaw().encode(kind([0, 900, -40], "i2"))
    assert MuLaw().encode(kind([-1, 0, 1], "i2")).tolist() == [0, 128, 255]


@pytest.mark.parametrize("levels", [1, 0, 2.5, 2**16 + 1])
def test_levels_out_of_range(levels):
    with pytest.raises(ValueError, match="levels"):
        MuLaw(levels)
