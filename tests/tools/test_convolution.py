"""Convolutions and their derivatives on a CPU equal those of XLA."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afflow._tools.convolution import convolve

CASES = {
    "image": ((5, 6, 3), (2, 3, 3, 2), (1, 1), 1),
    "many channels": ((4, 5, 9), (2, 2, 9, 2), (1, 1), 1),
    "strides": ((7, 6, 9), (2, 3, 9, 2), (2, 3), 1),
    "series": ((9, 2), (3, 2, 4), (1,), 2),
    "one tap": ((4, 9), (1, 9, 2), (1,), 1),
}


def by_library(z, kernel, strides, dilation):
    """Return the convolution by XLA's own."""
    space = z.ndim - 1
    numbers = ("NWC", "WIO", "NWC") if space == 1 else ("NHWC", "HWIO", "NHWC")
    options = {"rhs_dilation": (dilation,) * space, "dimension_numbers": numbers}
    return jax.lax.conv_general_dilated(z[None], kernel, strides, "VALID", **options)[0]


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives_equal_the_library(name):
    shape, window, *options = CASES[name]
    rng = np.random.default_rng(0)
    z, kernel = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=window))
    tangents = jnp.asarray(rng.normal(size=shape)), jnp.asarray(rng.normal(size=window))

    def compare(transform):
        found, expected = (
            transform(lambda z, kernel, f=f: f(z, kernel, *options)) for f in (convolve, by_library)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-11), found, expected)

    def differentiate(f):
        return jax.grad(lambda pair: jnp.sin(f(*pair)).sum())

    compare(lambda f: f(z, kernel))
    compare(lambda f: jax.jvp(f, (z, kernel), tangents))
    compare(lambda f: differentiate(f)((z, kernel)))
    compare(lambda f: jax.jvp(differentiate(f), ((z, kernel),), (tangents,)))
    batch = jnp.stack([z, 2 * z])
    compare(lambda f: differentiate(jax.vmap(f, (0, None)))((batch, kernel)))


@pytest.mark.parametrize("channels", [3, 9])
def test_derivatives_in_a_batch_sum_over_one_axis(channels):
    """Check the program: on a CPU, a sum over the axes of a batch of images is slow."""
    images, kernel = jnp.ones((2, 4, 5, channels)), jnp.ones((2, 2, channels, 2))

    def loss(kernel):
        return jax.vmap(lambda z: convolve(z, kernel, (1, 1)))(images).sum()

    program = jax.jit(jax.grad(loss)).lower(kernel).as_text()
    assert "dot_general" in program
    assert not re.search(r"contracting_dims = \[\d+, ", program)
