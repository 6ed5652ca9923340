"""A script that trains and samples on a mesh and saves the results, in a process of its own.

`test_sharding` runs it:

python -m tests.sharded OUT DATA MODEL [PROCESS NUM_PROCESSES ADDRESS]
"""

import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

import afflow
from afflow.training.placement import make_placement

X = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)


def fit(mesh, x=X, **options):
    """Return a flow that was fitted on a mesh, and its history."""
    flow = afflow.maf(3, num_layers=1, hidden=(16, 16), data=X, rngs=nnx.Rngs(0))
    sizes = {"batch_size": 40, "max_epochs": 3, "validation": 0.2025, "ema": 0.9}
    weights = np.linspace(0.5, 1.5, 400, dtype=np.float32)
    key = jax.random.key(0)
    return afflow.fit(
        flow, x, weights=weights, key=key, mesh=mesh, progress=False, **sizes | options
    )


def evaluate(flow):
    """Return samples of a flow, their densities, and the flow after a step along a gradient.

    The samples do not divide over the devices. Their densities are computed a few at a time. The
    gradient and the step are not compiled.
    """
    key = jax.random.key(1)
    samples, log_prob = flow.sample_and_log_prob(key, 49)
    grad = jax.grad(lambda flow: (flow.sample(key, 8) ** 2).mean())(flow)
    moved = jax.tree.map(lambda a, change: a - 0.1 * change, flow, grad)
    return samples, log_prob, flow.log_prob(samples, chunk=16), jax.tree.leaves(moved)


def check_placement(mesh):
    """Check that rows and matrices are split, and that all other arrays are replicated."""
    placement = make_placement(mesh)
    params = placement.params([np.zeros((16, 3)), np.zeros((15, 3)), np.zeros(16)])
    assert [a.sharding.spec for a in params] == [PartitionSpec("model"), *2 * [PartitionSpec()]]
    assert placement.stack(np.zeros((3, 8, 2))).sharding.spec == PartitionSpec(None, "data")
    assert placement.everywhere(np.zeros(8)).sharding.spec == PartitionSpec()


def check_continuous(mesh):
    """Check the density of a continuous flow, which cannot run within `jax.shard_map`."""
    flow = afflow.cnf(2, hidden=(4,), rngs=nnx.Rngs(0))
    expected = flow.log_prob(X[:6, :2])
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(flow.log_prob(X[:6, :2]), expected, rtol=1e-6)


def check_uncompiled(mesh):
    """Check that samples without compilation, which cannot be divided, are the same."""
    flow, key = afflow.maf(2, num_layers=1, hidden=(4,), rngs=nnx.Rngs(0)), jax.random.key(0)
    expected = flow.sample(key, 4)
    with jax.set_mesh(mesh), jax.disable_jit():
        np.testing.assert_allclose(flow.sample(key, 4), expected, rtol=1e-6)


def main(out, data, model, process=0, num_processes=1, address=None):
    """Train and sample on a mesh, and save the results in the first process.

    A single process trains on divided rows, within the context of the mesh. Several processes train
    again from the finished checkpoint, and check for the same result.
    """
    if address:
        jax.distributed.initialize(address, int(num_processes), int(process))
    mesh = jax.make_mesh((int(data), int(model)), ("data", "model"))
    check_placement(mesh)
    seen = []
    options = {"callbacks": [seen.append]}
    if address:
        options["checkpoint"] = afflow.Checkpoint(Path(out).with_suffix(".checkpoints"))
        flow, history = fit(mesh, **options)
    else:
        with jax.set_mesh(mesh):
            x = jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))
            flow, history = fit(None, x, **options)
        check_continuous(mesh)
        check_uncompiled(mesh)
    with jax.set_mesh(mesh):
        found = jax.tree.map(np.asarray, evaluate(flow))
    if int(process) == 0:
        afflow.save([flow, history.train, history.validation, found], out)
    if address:
        again, _ = fit(mesh, **options)
        jax.tree.map(np.testing.assert_array_equal, again, flow)
    assert len(seen) == 3
    assert jax.tree.leaves(seen[0].model)[0].is_fully_addressable


if __name__ == "__main__":
    main(*sys.argv[1:])
