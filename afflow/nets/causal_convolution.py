"""Causal convolutions that go on from a queue of earlier rows."""

from typing import Any

import jax
import jax.numpy as jnp

from afflow._tools.convolution import convolve as convolve_valid


def make_queue(dilation: int, kernel_size: int, channels: int, dtype: Any) -> jax.Array:
    """Return the empty queue of a convolution, with room for the rows that it reads again."""
    return jnp.zeros(((kernel_size - 1) * dilation, channels), dtype)


def convolve(
    queue: jax.Array, z: jax.Array, t: jax.Array | int, kernel: jax.Array, dilation: int = 1
) -> tuple[jax.Array, jax.Array]:
    r"""Return rows of a causal convolution `(n, C')`, and the queue after them.

    $$y_s = \sum_{k=0}^{K-1} z_{s - k d}\, W_k, \qquad s = t, \dots, t + n - 1,$$

    with zeros before row 0. Row `s` of the series stands at place `s` of the queue, modulo the size
    of the queue, so one more row changes one place (Paine et al. 2016, arXiv:1611.09482).

    Args:
        queue: the rows before row `t` of the series, see `make_queue`.
        z: rows `t, ..., t + n - 1` of the series, `(n, C)`.
        t: the number of the first row.
        kernel: the weights $W$ `(K, C, C')`, of the present row first.
        dilation: the distance $d$ of the rows that one row of the result reads.
    """
    n, size, z = len(z), len(queue), z.astype(queue.dtype)
    if size == 0:
        return z @ kernel[0], queue
    if n == 1:
        places = [(t - k * dilation) % size for k in range(1, len(kernel))]
        rows = [z, *(jax.lax.dynamic_slice_in_dim(queue, place, 1) for place in places)]
        queue = jax.lax.dynamic_update_slice_in_dim(queue, z, t % size, 0)
        return jnp.concatenate(rows, axis=1) @ kernel.reshape(-1, kernel.shape[2]), queue
    series = jnp.concatenate([queue[(t + jnp.arange(size)) % size], z])
    newest = series[n:][(jnp.arange(size) - t - n) % size]
    return convolve_valid(series, kernel[::-1], (1,), dilation), newest
