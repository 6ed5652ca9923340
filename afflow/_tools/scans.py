r"""Loops of $T$ steps that keep about $\sqrt T$ of their carries in memory."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def scan_in_chunks(body: Callable, carry, xs):
    r"""Return `lax.scan(body, carry, xs)[1]`, with $\sqrt D$ carries kept for the backward pass.

    The backward pass runs the steps between two of these carries again.
    """
    size = len(jax.tree.leaves(xs)[0])
    width = math.isqrt(size)
    cut = size - size % width
    chunks = jax.tree.map(lambda a: a[:cut].reshape(-1, width, *a.shape[1:]), xs)
    chunk = jax.checkpoint(lambda carry, xs: jax.lax.scan(body, carry, xs), prevent_cse=False)
    carry, out = jax.lax.scan(chunk, carry, chunks)
    out = jax.tree.map(lambda a: a.reshape(cut, *a.shape[2:]), out)
    _, rest = chunk(carry, jax.tree.map(lambda a: a[cut:], xs))
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), out, rest)


def scan_back(advance: Callable, start: Any, undo: Callable, last: Any, xs: Any) -> Any:
    """Run a loop forth, and a loop back over its steps; return the results of the loop back.

    The loop back runs the steps between two of the kept carries again. If `T` is a prime number,
    all carries are kept.

    Args:
        advance: `advance(carry, x)`, which returns the next carry of the loop forth.
        start: the first carry of the loop forth.
        undo: `undo(back, x, carry)`, which returns the next carry of the loop back, and a result.
            `carry` is the carry of the loop forth before the step of `x`.
        last: the first carry of the loop back.
        xs: what the `T` steps take.
    """
    num = len(jax.tree.leaves(xs)[0])
    size = max(n for n in range(1, math.isqrt(num) + 1) if num % n == 0)
    blocks = jax.tree.map(lambda a: a.reshape(-1, size, *a.shape[1:]), xs)

    def keep(carry, x):
        return advance(carry, x), carry

    def skip(carry, block):
        return jax.lax.scan(lambda carry, x: (advance(carry, x), None), carry, block)[0], carry

    def undo_block(back, scanned):
        block, start = scanned
        _, carries = jax.lax.scan(keep, start, block)
        pairs = block, carries
        return jax.lax.scan(lambda back, pair: undo(back, *pair), back, pairs, reverse=True)

    _, starts = jax.lax.scan(skip, start, blocks)
    _, out = jax.lax.scan(undo_block, last, (blocks, starts), reverse=True)
    return jax.tree.map(lambda a: a.reshape(num, *a.shape[2:]), out)
