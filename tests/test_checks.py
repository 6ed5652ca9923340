"""`check_bijector` finds every defect that it promises to find."""

import jax
import jax.numpy as jnp
import pytest
from registry import autoregressive

import afflow

KEY = jax.random.key(0)


class Scale(afflow.Bijector):
    """A bijector that doubles two numbers. Each argument makes one property wrong."""

    event_shape, context_shape = (2,), None

    def __init__(self, back=0.5, log_det=1.0, log_det_back=-1.0, dtype=None, shape=()):
        self.back, self.dtype, self.shape = back, dtype, shape
        self.log_det, self.log_det_back = 2 * log_det, 2 * log_det_back

    def forward_and_log_det(self, x, context=None):
        y = (2 * x).astype(self.dtype or x.dtype)
        return y, self.log_det * jnp.full(self.shape, jnp.log(2.0))

    def inverse_and_log_det(self, y, context=None):
        return self.back * y, self.log_det_back * jnp.full((), jnp.log(2.0))


class Leak(Scale):
    """A bijector with a NaN gradient, from a square root at zero behind `where`."""

    def forward_and_log_det(self, x, context=None):
        zero = x - x
        return 2 * x + jnp.where(zero > 0, jnp.sqrt(zero), 0), 2 * jnp.log(2.0)


class Shear(Scale):
    """A shear whose inverse hides one off-diagonal derivative, which no determinant contains."""

    def forward_and_log_det(self, x, context=None):
        return x.at[1].add(x[0]), jnp.zeros(())

    def inverse_and_log_det(self, y, context=None):
        return y.at[1].add(-jax.lax.stop_gradient(y[0])), jnp.zeros(())


BROKEN = {
    "a wrong inverse": (lambda: Scale(back=0.6), "inverse log_det against slogdet"),
    "a wrong sign": (lambda: Scale(log_det=-1.0), "forward log_det against slogdet .* 2.77"),
    "a wrong inverse log_det": (lambda: Scale(log_det_back=-1.1), "inverse log_det against"),
    "a log_det per coordinate": (lambda: Scale(shape=(2,)), r"scalar log_det, got shape \(2,\)"),
    "another dtype": (lambda: Scale(dtype=jnp.float32), "dtype float64, got float32"),
    "a derivative that is missing": (Shear, "product of the Jacobians .* error"),
    "a gradient that is NaN": (Leak, "forward: .* gradients are not finite"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_bijectors_fail(name):
    make, message = BROKEN[name]
    with pytest.raises(AssertionError, match=message):
        afflow.check_bijector(make(), key=KEY)


def test_a_raw_key_of_another_kind_is_taken():
    afflow.check_bijector(afflow.Reverse(2), key=jax.random.PRNGKey(0, impl="rbg"))


def test_wrong_offset_fails_the_round_trip():
    class Drift(Scale):
        def inverse_and_log_det(self, y, context=None):
            return y / 2 + 0.1, -2 * jnp.log(2.0)

    with pytest.raises(AssertionError, match=r"inverse\(forward\(x\)\) against x: error 0.1"):
        afflow.check_bijector(Drift(), key=KEY)


def test_not_triangular_fails():
    layer = autoregressive(3)
    turned = afflow.Chain([layer, afflow.Reverse(3)])
    with pytest.raises(AssertionError, match="above the diagonal"):
        afflow.check_bijector(turned, key=KEY, triangular=True)


@jax.custom_vjp
def double(x):
    """Double `x`, with a reverse derivative only."""
    return 2 * x


double.defvjp(lambda x: (double(x), None), lambda _, g: (2 * g,))


class OwnGradient(Scale):
    """A bijector that has a reverse derivative only."""

    def forward_and_log_det(self, x, context=None):
        return double(x), 2 * jnp.log(2.0)


@pytest.mark.parametrize("make", [Scale, OwnGradient])
def test_a_right_one_passes(make):
    afflow.check_bijector(make(), key=KEY, triangular=True)
