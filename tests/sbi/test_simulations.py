"""Simulations: JAX functions in batches, Python functions in processes, and failures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from afflow import sbi

KEY = jax.random.key(0)
PRIOR = sbi.box([-1.0], [1.0])


def simulate_jax(key, theta):
    """Return data that are NaN for negative parameters."""
    x = theta[None] + 0.01 * jax.random.normal(key, (2, 1))
    return jnp.where(theta[None] > 0, x, jnp.nan)


def simulate_python(rng, theta):
    """Return data, or fail by an exception or by an infinite number."""
    if theta[0] < -0.5:
        raise RuntimeError("no convergence")
    return rng.normal(theta, 0.01, (2, 1)) if theta[0] > 0 else np.full((2, 1), np.inf)


@pytest.mark.parametrize("batch_size", [32, 1000])
def test_failures_of_a_jax_function_are_left_out(batch_size):
    made = sbi.simulate(simulate_jax, PRIOR, 100, key=KEY, batch_size=batch_size, progress=False)
    assert made.x.shape == (len(made.theta), 2, 1)
    assert len(made.theta) + made.failed == 100
    assert 20 < made.failed < 80
    assert (made.theta > 0).all()
    assert np.abs(made.x - made.theta[:, None]).max() < 0.1  # rows stay together


@pytest.mark.parametrize("workers", [1, 2])
def test_failures_of_a_python_function_are_left_out(workers):
    made = sbi.simulate(
        simulate_python, PRIOR, 60, key=KEY, batch_size=16, workers=workers, progress=False
    )
    assert made.x.shape == (len(made.theta), 2, 1)
    assert len(made.theta) + made.failed == 60
    assert (made.theta > 0).all()
    assert np.abs(made.x - made.theta[:, None]).max() < 0.1
    assert len(np.unique(made.x - made.theta[:, None])) == made.x.size  # noise of its own


def test_exceptions_are_told():
    with pytest.warns(UserWarning, match="of 60 .* the first RuntimeError: no conv"):
        run(simulate_python, n=60, workers=1)


def test_an_error_of_a_jax_function_names_the_other_kind():
    with pytest.raises(AttributeError) as caught:
        run(simulate_python_only)
    assert "workers=1" in "".join(caught.value.__notes__)


def simulate_python_only(rng, theta):
    return rng.normal(size=2)


def test_workers_do_not_change_the_simulations():
    runs = [
        sbi.simulate(
            simulate_python, PRIOR, 40, key=KEY, batch_size=8, workers=workers, progress=False
        )
        for workers in (1, 2)
    ]
    np.testing.assert_array_equal(runs[0].x, runs[1].x)


def test_a_bar_changes_nothing():
    made = [sbi.simulate(simulate_jax, PRIOR, 10, key=KEY, progress=show) for show in (True, False)]
    np.testing.assert_array_equal(made[0].x, made[1].x)


def test_joined():
    made = sbi.simulate(simulate_jax, PRIOR, 20, key=KEY, progress=False)
    both = made.join(made)
    assert (len(both.theta), both.failed) == (2 * len(made.theta), 2 * made.failed)


ERRORS = {
    "all fail": (lambda: run(lambda key, theta: theta / 0), "succeed"),
    "no function": (lambda: run(3), "function as simulator"),
    "one argument": (lambda: run(lambda theta: theta), r"function of 2 arguments.*\(theta\)"),
    "all raise": (lambda: run(simulate_broken, workers=1), "the first ZeroDivisionError"),
    "dict": (lambda: run(lambda key, theta: {"x": theta}), "one array"),
    "two shapes": (lambda: run(simulate_two_shapes, n=20, workers=1), "of one shape"),
    "shapes of batches": (
        lambda: run(simulate_two_shapes, n=20, batch_size=1, workers=1),
        "of one shape",
    ),
    "no simulations": (lambda: run(simulate_jax, n=0), "n >= 1"),
    "no batch": (lambda: run(simulate_jax, batch_size=0), "batch_size >= 1"),
    "negative workers": (lambda: run(simulate_jax, workers=-1), "workers >= 0"),
}


def simulate_broken(rng, theta):
    return 1 / 0


def simulate_two_shapes(rng, theta):
    return theta if theta[0] > 0 else np.append(theta, theta)


def run(simulator, n=4, **options):
    return sbi.simulate(simulator, PRIOR, n, key=KEY, progress=False, **options)


@pytest.mark.parametrize("name", ERRORS)
def test_wrong_arguments(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=message):
        call()
