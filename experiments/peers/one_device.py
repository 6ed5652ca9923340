"""The functions that `accelerator.py` times, each without arguments.

All libraries share one process and one device. A variant without a precision uses the library's
default. A variant with a precision is called under `jax.default_matmul_precision`.
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import afflow
from peers import Sizes, by_hand, jax_flows
from peers.cells import SEED, Cell

FIT_STEPS = 50
"""Steps in the timed call of `afflow.fit`."""
SOLVERS: dict[str, Callable[[], afflow.bijectors.Solver]] = {
    "afflow": lambda: afflow.Incremental(),
    "afflow XLA steps": lambda: afflow.Incremental(kernel=False),
    "afflow Jacobi": lambda: afflow.Jacobi(),
}
FACTORIES = {"maf": afflow.maf, "iaf": afflow.iaf, "nsf": afflow.nsf}
_TRAINED = "trained "  # prefix of the name of a family
_TRAINING = {"rows": 30_000, "batch": 1000, "epochs": 10, "seconds": 15.0}


class Call(NamedTuple):
    """A function to time. `wait` returns once its result is complete. It takes `steps` steps."""

    run: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready
    steps: int = 1


def is_finite(out: Any) -> bool:
    """Return whether all arrays of JAX or PyTorch in a pytree are finite."""
    leaves = (leaf.cpu() if hasattr(leaf, "cpu") else leaf for leaf in jax.tree.leaves(out))
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in leaves)


def normal(batch: int, dim: int) -> np.ndarray:
    """Return standard normal float32 events `(batch, dim)`."""
    return np.random.default_rng(SEED).standard_normal((batch, dim), np.float32)


@cache
def afflow_flow(family: str, sizes: Sizes, solver: str) -> afflow.Flow:
    """Build a flow with trained weights, or with random weights near the identity."""
    width = (sizes.width, sizes.width)
    flow = FACTORIES[family.removeprefix(_TRAINED)](
        sizes.dim,
        num_layers=sizes.num_layers,
        hidden=width,
        activation=jax.nn.relu,
        mix=lambda dim, rngs: afflow.Reverse(dim),
        solver=SOLVERS[solver](),
        rngs=nnx.Rngs(sizes.seed),
    )
    if family.startswith(_TRAINED):
        trained, _ = trained_flow(family, sizes, None)
        return jax.tree.unflatten(jax.tree.structure(flow), jax.tree.leaves(trained))
    rng = np.random.default_rng(sizes.seed)
    return jax.tree.map(lambda a: a + rng.normal(0, 0.01, a.shape).astype(a.dtype), flow)


@cache
def trained_flow(
    family: str, sizes: Sizes, precision: str | None
) -> tuple[afflow.Flow, dict[str, float]]:
    """Fit a flow to a random nonlinear map of a normal; return it with losses and times.

    The caller has set `precision`. The argument only makes the cache keep one fit per precision.
    """
    start = time.perf_counter()
    flow, history = afflow.fit(
        afflow_flow(family.removeprefix(_TRAINED), sizes, "afflow"),
        folded_normal(_TRAINING["rows"], sizes.dim),
        key=jax.random.key(sizes.seed),
        batch_size=_TRAINING["batch"],
        max_epochs=_TRAINING["epochs"],
        callbacks=[lambda epoch: time.perf_counter() - start > _TRAINING["seconds"]],
        progress=False,
    )
    losses = {"first": history.validation[0], "best": min(history.validation)}
    took = {"epochs": len(history.train), "seconds": time.perf_counter() - start}
    return flow, took | {f"{name}_validation_nats": loss for name, loss in losses.items()}


def folded_normal(num_rows: int, dim: int) -> np.ndarray:
    """Return standardised rows of `tanh(2 z A) B + z / 5` with `z` standard normal."""
    rng = np.random.default_rng(SEED)
    z = rng.normal(size=(num_rows, dim))
    a, b = rng.normal(size=(2, dim, dim)) / np.sqrt(dim)
    x = np.tanh(2 * z @ a) @ b + z / 5
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


def own_flow(cell: Cell) -> afflow.Flow:
    """Return the flow of a variant of afflow."""
    solver = cell.library.removesuffix(" in jit")
    return afflow_flow(cell.family, cell.sizes, solver)


def as_functions(cell: Cell) -> jax_flows.Flow:
    """Return a JAX flow as functions of its parameters."""
    if cell.library == "flowjax":
        return _flowjax(cell.sizes)
    if cell.library.startswith("by hand"):
        return _by_hand(cell)
    graph, params, rest = nnx.split(own_flow(cell), nnx.Param, ...)
    return jax_flows.Flow(
        params,
        lambda params, x: nnx.merge(graph, params, rest).log_prob(x),
        lambda params, key, n: nnx.merge(graph, params, rest).sample(key, n),
    )


_flowjax = cache(jax_flows.flowjax_maf)


def _by_hand(cell: Cell) -> jax_flows.Flow:
    layers = by_hand.unstacked(by_hand.stacked(afflow_flow(cell.family, cell.sizes, "afflow")))

    def sample(params, key, n):
        raise NotImplementedError("Expected a density only: the flow by hand draws no samples.")

    return jax_flows.Flow(layers, by_hand.log_prob, sample)


@cache
def _zuko(sizes: Sizes):
    import torch

    from peers.torch_flows import zuko_maf

    torch.manual_seed(sizes.seed)
    flow = zuko_maf(sizes)
    flow.module.to(_torch_device())
    return flow


def _torch_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _torch_call(run: Callable[[], Any]) -> Call:
    import torch

    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    return Call(run, lambda out: wait())


def density(cell: Cell) -> Call:
    """Return a call that scores a batch.

    `"afflow"` calls the method; `"afflow in jit"` calls a jitted function of the parameters.
    """
    x = normal(cell.batch, cell.dim)
    if cell.library == "zuko":
        import torch

        flow, data = _zuko(cell.sizes), torch.from_numpy(x).to(_torch_device())
        return _torch_call(torch.no_grad()(lambda: flow.log_prob(data)))
    data = jnp.asarray(x)
    if cell.library == "afflow":
        flow = own_flow(cell)
        return Call(lambda: flow.log_prob(data))
    functions = as_functions(cell)
    log_prob = jax.jit(functions.log_prob)
    return Call(lambda: log_prob(functions.params, data))


def sample(cell: Cell) -> Call:
    """Return a call that draws a batch."""
    if cell.library == "zuko":
        import torch

        flow = _zuko(cell.sizes)
        return _torch_call(torch.no_grad()(lambda: flow.sample(cell.batch)))
    key = jax.random.key(SEED)
    if cell.library == "flowjax":
        functions = as_functions(cell)
        draw = jax.jit(functions.sample, static_argnums=2)
        return Call(lambda: draw(functions.params, key, cell.batch))
    flow = own_flow(cell)
    return Call(lambda: flow.sample(key, cell.batch))


def sample_and_log_prob(cell: Cell) -> Call:
    """Return a call that draws a batch with its log-densities."""
    flow, key = own_flow(cell), jax.random.key(SEED)
    return Call(lambda: flow.sample_and_log_prob(key, cell.batch))


def train(cell: Cell) -> Call:
    """Return a call that takes an Adam step on the mean negative log-likelihood of a batch."""
    x = normal(cell.batch, cell.dim)
    if cell.library == "zuko":
        return _train_zuko(cell, x)
    functions, data, optimizer = as_functions(cell), jnp.asarray(x), optax.adam(1e-3)
    state = functions.params, optimizer.init(functions.params)

    @jax.jit
    def step(params, opt_state, x):
        loss, grads = jax.value_and_grad(lambda p: -functions.log_prob(p, x).mean())(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def run():
        nonlocal state
        state, loss = step(*state, data)
        return loss, state

    return Call(run)


def _train_zuko(cell: Cell, x: np.ndarray) -> Call:
    import copy

    import torch

    module = copy.deepcopy(_zuko(cell.sizes).module)
    data = torch.from_numpy(x).to(_torch_device())
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def run():
        optimizer.zero_grad()
        loss = -module().log_prob(data).mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _torch_call(run)


def fit(cell: Cell) -> Call:
    """Return a call of `afflow.fit`: one epoch of `FIT_STEPS` steps over an array on the host."""
    flow, optimizer, key = own_flow(cell), optax.adam(1e-3), jax.random.key(SEED)
    x = normal((FIT_STEPS + 1) * cell.batch, cell.dim)
    held_out, x = x[: cell.batch], x[cell.batch :]
    options: dict[str, Any] = {"validation": held_out, "batch_size": cell.batch}
    options |= {"max_epochs": 1, "progress": False, "optimizer": optimizer}
    return Call(lambda: afflow.fit(flow, x, key=key, **options), steps=FIT_STEPS)


def gradient(cell: Cell) -> Call:
    """Return a call that differentiates the mean square of samples by the parameters."""
    functions, key = as_functions(cell), jax.random.key(SEED)

    @jax.jit
    def grad(params):
        return jax.grad(lambda p: jnp.mean(functions.sample(p, key, cell.batch) ** 2))(params)

    return Call(lambda: grad(functions.params))


CALLS: dict[str, Callable[[Cell], Call]] = {
    "density": density,
    "sample": sample,
    "sample_and_log_prob": sample_and_log_prob,
    "train": train,
    "fit": fit,
    "gradient": gradient,
}


def accuracy(cell: Cell) -> dict[str, float]:
    """Return the largest rounding errors of a density and, for afflow, of a round trip.

    The reference is the density of the default variant in float64 on the CPU. The events are
    samples of that variant.
    """
    reference = afflow_flow(cell.family, cell.sizes, "afflow")
    z = jnp.asarray(normal(cell.batch, cell.dim))
    x, _ = _forward(reference, z)
    functions = as_functions(cell)
    expected = _log_prob_in_float64(reference, x)
    found = np.asarray(jax.jit(functions.log_prob)(functions.params, x))
    errors = {
        "log_prob_error": float(abs(found - expected).max()),
        "log_prob_bias": float((found - expected).mean()),
        "log_prob_mean": float(expected.mean()),
    }
    if cell.library.startswith("by hand"):
        return errors
    flow = own_flow(cell)
    x, log_det = _forward(flow, z)
    back, log_det_back = _inverse(flow, x)
    moved = {"z_error": back - z, "log_det_error": log_det + log_det_back}
    return errors | {name: float(jnp.abs(error).max()) for name, error in moved.items()}


@jax.jit
def _forward(flow: afflow.Flow, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(flow.bijector.forward_and_log_det)(z)


@jax.jit
def _inverse(flow: afflow.Flow, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(flow.bijector.inverse_and_log_det)(x)


def _log_prob_in_float64(flow: afflow.Flow, x: jax.Array) -> np.ndarray:
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):  # noqa: FBT003
        flow = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, float)), flow)
        return np.asarray(flow.log_prob(jnp.asarray(np.asarray(x, float))))
