"""Loops that keep some of their carries: back and forth against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afflow._tools.scans import scan_back


@pytest.mark.parametrize("num", [1, 5, 6, 9])
def test_a_loop_back_meets_the_carry_before_each_step(num):
    xs = np.arange(1.0, num + 1)

    def advance(carry, x):
        return carry * 0.9 + x

    def undo(back, x, carry):
        return back * 0.5 + carry, (back, x, carry)

    found = jax.jit(lambda xs: scan_back(advance, jnp.ones(()), undo, jnp.zeros(()), xs))(xs)
    carries, back, expected = [1.0], 0.0, []
    for x in xs:
        carries.append(carries[-1] * 0.9 + x)
    for x, carry in zip(xs[::-1], carries[-2::-1], strict=True):
        expected.append((back, x, carry))
        back = back * 0.5 + carry
    np.testing.assert_allclose(np.stack(found, 1), expected[::-1], rtol=1e-12)
