"""Simulations: parameters drawn from a prior, and the data that a simulator makes of them."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from afflow._tools.arguments import check_callable
from afflow._tools.calls import make_typed
from afflow._tools.extras import import_extra
from afflow._tools.shapes import check_size
from afflow.models.flow import Flow
from afflow.sbi.priors import check_prior
from afflow.training.progress import find_tqdm

Simulator = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Simulations:
    """Parameters `theta` `(N, D)`, their data `x` `(N, *x_shape)`, and the number of failures.

    A simulation has failed if it raised an exception, or if its data are not all finite. Failed
    simulations are left out of `theta` and `x`.
    """

    theta: jax.Array
    x: jax.Array
    failed: int = 0

    def join(self, other: "Simulations") -> "Simulations":
        """Return the simulations of both."""
        theta, x = (
            jnp.concatenate(pair) for pair in ((self.theta, other.theta), (self.x, other.x))
        )
        return Simulations(theta, x, self.failed + other.failed)


def simulate(
    simulator: Simulator,
    prior: Flow,
    n: int,
    *,
    key: jax.Array,
    batch_size: int = 1024,
    workers: int = 0,
    progress: bool = True,
) -> Simulations:
    r"""Draw $\theta_i \sim p(\theta)$ and simulate $x_i \sim p(x \mid \theta_i)$.

    Args:
        simulator: `simulator(key, theta)`, the data of one parameter vector `(D,)`. Without
            workers it is a JAX function, which is compiled and mapped over batches. With workers it
            is any Python function, `simulator(rng, theta)` with a `numpy.random.Generator`.
        prior: the prior.
        n: the number of simulations.
        key: a PRNG key.
        batch_size: the number of simulations in a batch.
        workers: the number of processes for a Python function (extra `sbi`). With 1 it runs in this
            process.
        progress: show a progress bar, if `tqdm` is installed.

    Returns:
        The `Simulations`, without the failed ones. With many failures the posterior is conditional
        on success: $p(\theta \mid x, \text{no failure})$, which is the same posterior for an
        observation that is not a failure.

    Raises:
        ValueError: for sizes out of range, for data of different shapes, or if all simulations
            fail. An exception of a JAX function is not counted, but raised.

    Warns:
        UserWarning: if a Python function raises exceptions, with the first of them.

    Example:
        >>> import afflow, jax
        >>> prior = afflow.sbi.gaussian([0.0, 0.0], [1.0, 1.0])
        >>> def simulator(key, theta):
        ...     return theta + 0.1 * jax.random.normal(key, (2,))
        >>> made = afflow.sbi.simulate(simulator, prior, 100, key=jax.random.key(0), progress=False)
        >>> made.theta.shape, made.x.shape, made.failed
        ((100, 2), (100, 2), 0)
    """
    check_prior(prior)
    check_size("n", n)
    prior_key, key = jax.random.split(make_typed(key))
    theta = prior.sample(prior_key, n)
    return simulate_at(
        simulator, theta, key=key, batch_size=batch_size, workers=workers, progress=progress
    )


def simulate_at(
    simulator: Simulator,
    theta: jax.Array,
    *,
    key: jax.Array,
    batch_size: int = 1024,
    workers: int = 0,
    progress: bool = True,
) -> Simulations:
    """Simulate data for given parameters `theta` `(N, D)`; other arguments as in `simulate`.

    Example:
        >>> import afflow, jax, jax.numpy as jnp
        >>> def simulator(rng, theta):
        ...     return rng.normal(theta) if theta[0] > 0 else 1 / 0
        >>> theta = jnp.array([[1.0], [-1.0], [2.0]])
        >>> options = {"key": jax.random.key(0), "workers": 1, "progress": False}
        >>> made = afflow.sbi.simulate_at(simulator, theta, **options)
        >>> made.theta.tolist(), made.failed
        ([[1.0], [2.0]], 1)
    """
    argument = "rng" if workers else "key"
    check_callable("simulator", simulator, f"lambda {argument}, theta: theta", 2)
    check_size("batch_size", batch_size)
    check_size("workers", workers, least=0)
    theta, key = jnp.asarray(theta), make_typed(key)
    starts = range(0, len(theta), batch_size)
    batches = [theta[start : start + batch_size] for start in starts]
    run = _run_python if workers else _run_jax
    bar = _show(run(simulator, batches, key, workers), len(batches), progress=progress)
    return _collect(theta, list(bar))


class _Simulated(NamedTuple):
    """The simulations of a batch."""

    good: np.ndarray  # which simulations succeed
    x: Any  # the data of these
    errors: list[str]  # of the simulations that raised exceptions


def _collect(theta: jax.Array, batches: list[_Simulated]) -> Simulations:
    """Return the simulations that succeed. Warn of exceptions."""
    good = np.concatenate([batch.good for batch in batches])
    errors = [error for batch in batches for error in batch.errors]
    raised = f"{len(errors)} of {len(theta)} simulations raised exceptions"
    first = f"; {raised}, the first {errors[0]}" if errors else ""
    if not good.any():
        raise ValueError(
            f"Expected some simulations that succeed, got {len(theta)} failures{first}."
        )
    if errors:
        warnings.warn(f"{raised} and are left out, the first {errors[0]}.", stacklevel=3)
    x = [batch.x for batch in batches if len(batch.x)]
    _check_shapes({part.shape[1:] for part in x})
    return Simulations(theta[good], jnp.concatenate(x), int((~good).sum()))


def _run_jax(
    simulator: Simulator, batches: list[jax.Array], key: jax.Array, workers: int
) -> Iterator[_Simulated]:
    """Yield the simulations of each batch."""
    run = jax.jit(jax.vmap(simulator))
    for i, theta in enumerate(batches):
        try:
            x = run(jax.random.split(jax.random.fold_in(key, i), len(theta)), theta)
        except Exception as error:
            error.add_note(
                "Without workers= a simulator is a JAX function of a key and one parameter vector "
                f"({theta.shape[1]},). With workers=1 it is any function, of a generator of NumPy "
                "and the vector."
            )
            raise
        if not isinstance(x, jax.Array):
            raise ValueError(f"Expected one array as the data of a simulation, got {type(x)}.")
        good = find_finite(x)
        yield _Simulated(good, x[good], [])


def find_finite(rows: jax.Array) -> np.ndarray:
    """Return which of the rows `(N, ...)` have finite entries only, `(N,)`."""
    return np.asarray(jnp.isfinite(rows).reshape(len(rows), -1).all(1))


def _run_python(
    simulator: Simulator, batches: list[jax.Array], key: jax.Array, workers: int
) -> Iterator[_Simulated]:
    """Yield what `_run_jax` yields, from processes that run a Python function."""
    seeds = np.random.SeedSequence(np.asarray(jax.random.key_data(key)).tolist())
    tasks = zip(batches, seeds.spawn(len(batches)), strict=True)
    jobs = ((simulator, np.asarray(theta), seed) for theta, seed in tasks)
    if workers == 1:
        yield from (_run_batch(*job) for job in jobs)
        return
    joblib = import_extra("joblib", "sbi", "runs simulators in several processes")
    pool = joblib.Parallel(n_jobs=workers, return_as="generator")
    yield from pool(joblib.delayed(_run_batch)(*job) for job in jobs)


def _run_batch(simulator: Simulator, theta: np.ndarray, seed: np.random.SeedSequence) -> _Simulated:
    """Run a Python function for each row of `theta`."""
    rng, errors = np.random.default_rng(seed), []
    found: list[np.ndarray | None] = []
    for row in theta:
        try:
            x = np.asarray(simulator(rng, row), float)
        except Exception as error:  # it is counted, and does not end the other simulations
            errors.append(f"{type(error).__name__}: {error}")
            found.append(None)
        else:
            found.append(x if np.isfinite(x).all() else None)
    rows = [x for x in found if x is not None]
    _check_shapes({x.shape for x in rows})
    return _Simulated(np.array([x is not None for x in found]), np.array(rows), errors)


def _check_shapes(shapes: set[tuple[int, ...]]) -> None:
    """Raise `ValueError` for data of more than one shape."""
    if len(shapes) > 1:
        raise ValueError(f"Expected data of one shape, got simulations of shapes {sorted(shapes)}.")


def _show(batches: Iterable[Any], total: int, *, progress: bool) -> Iterable[Any]:
    """Return the batches with a progress bar, if wanted and `tqdm` is installed."""
    tqdm = find_tqdm() if progress else None
    if tqdm is None:
        return batches
    return tqdm(batches, total=total, desc="simulations", unit="batch", dynamic_ncols=True)
