"""Convolutions in one or two dimensions, with fast derivatives on a CPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.lowering import on_cpu
from afflow._tools.products import multiply_rows

_FEW = 8  # with fewer channels, one product of all places in a window is faster
_NUMBERS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC")}


def convolve(
    z: jax.Array, kernel: jax.Array, strides: tuple[int, ...], dilation: int = 1
) -> jax.Array:
    r"""Return the convolution of one array where the kernel lies within it.

    $$y_i = \sum_k z_{s i + d k}\, W_k.$$

    Args:
        z: values `(*space, C)` in one or two dimensions.
        kernel: the weights $W$ `(*window, C, C')`.
        strides: the distances $s$ of the windows, one for each dimension.
        dilation: the distance $d$ of the values in a window.
    """
    if on_cpu():
        return _convolve(z, kernel.astype(z.dtype), strides, dilation)
    return _call_library(z, kernel.astype(z.dtype), strides, dilation)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolve(z, kernel, strides, dilation):
    return _call_library(z, kernel, strides, dilation)


# Within a loop, such as an epoch of `fit`, XLA's CPU compiler has no fast convolution for the
# derivative by the kernel: 0.36 s in place of 0.011 s for 16 images of 28 x 28 x 32 values.
# Products of matrices are fast in both places.
@_convolve.defjvp
def _convolve_jvp(strides, dilation, primals, tangents):
    (z, kernel), (d_z, d_kernel) = primals, tangents
    options = strides, dilation
    tangent = _add_products(d_z, kernel, *options) + _add_products(z, d_kernel, *options)
    return _convolve(z, kernel, *options), tangent


def _call_library(z, kernel, strides, dilation):
    space = z.ndim - 1
    options = {"rhs_dilation": (dilation,) * space, "dimension_numbers": _NUMBERS[space]}
    return jax.lax.conv_general_dilated(z[None], kernel, strides, "VALID", **options)[0]


def _add_products(z, kernel, strides, dilation):
    """Return the convolution as a sum of matrix products, one for each place in the window."""
    window = kernel.shape[:-2]
    space = zip(z.shape[:-1], window, strides, strict=True)
    spans = [1 + (n - 1 - dilation * (k - 1)) // s * s for n, k, s in space]

    def cut(place):
        first = [dilation * k for k in place]
        last = [start + span for start, span in zip(first, spans, strict=True)]
        return jax.lax.slice(z, (*first, 0), (*last, z.shape[-1]), (*strides, 1))

    places = list(np.ndindex(window))
    if z.shape[-1] < _FEW:
        columns = jnp.concatenate([cut(place) for place in places], -1)
        return multiply_rows(columns, kernel.reshape(-1, kernel.shape[-1]))
    first, *others = (multiply_rows(cut(place), kernel[place]) for place in places)
    return sum(others, first)
