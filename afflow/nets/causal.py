"""Causal convolutions that go on from a queue of earlier rows."""

from typing import Any

import jax
import jax.numpy as jnp


def make_queue(dilation: int, kernel_size: int, channels: int, dtype: Any) -> jax.Array:
    """Return the empty queue of a convolution, with room for the rows that it reads again."""
    return jnp.zeros(((kernel_size - 1) * dilation, channels), dtype)


def read_taps(
    queue: jax.Array, z: jax.Array, t: jax.Array | int, dilation: int, kernel_size: int
) -> tuple[list[jax.Array], jax.Array]:
    """Return the rows that a causal convolution reads, and the queue after them.

    Row `s` of a series stands at place `s` modulo the size of the queue, so one more row changes
    one place (Paine et al. 2016, arXiv:1611.09482).

    Args:
        queue: the rows before row `t` of the series, see `make_queue`.
        z: rows `t, ..., t + n - 1` of the series, `(n, R)`.
        t: the number of the first row.
        dilation: the distance of two taps `d`.
        kernel_size: the number of taps.

    Returns:
        For each tap `k` the rows `t - k d, ..., t + n - 1 - k d`, with zeros before row 0.
    """
    n, size, z = len(z), len(queue), z.astype(queue.dtype)
    if kernel_size == 1:
        return [z], queue
    if n == 1:
        places = [(t - k * dilation) % size for k in range(1, kernel_size)]
        earlier = [jax.lax.dynamic_slice_in_dim(queue, place, 1) for place in places]
        return [z, *earlier], jax.lax.dynamic_update_slice_in_dim(queue, z, t % size, 0)
    oldest_first = queue[(t + jnp.arange(size)) % size]
    series = jnp.concatenate([oldest_first, z])
    starts = [size - k * dilation for k in range(kernel_size)]
    newest = series[n:][(jnp.arange(size) - t - n) % size]
    return [series[start : start + n] for start in starts], newest
