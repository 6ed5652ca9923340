"""Train on a mesh and save the flow: run by `test_sharding`, in processes of their own.

python -m tests.sharded OUT DATA MODEL [PROCESS NUM_PROCESSES ADDRESS]
"""

import sys
from pathlib import Path

import jax
import numpy as np
from flax import nnx

import afflow

X = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)


def fit(mesh, **options):
    """Return a flow fitted on a mesh, with its history."""
    flow = afflow.maf(3, num_layers=1, hidden=(16, 16), data=X, rngs=nnx.Rngs(0))
    sizes = {"batch_size": 40, "max_epochs": 3, "validation": 0.2, "ema": 0.9}
    weights = np.linspace(0.5, 1.5, 400, dtype=np.float32)
    key = jax.random.key(0)
    return afflow.fit(
        flow, X, weights=weights, key=key, mesh=mesh, progress=False, **sizes | options
    )


def main(out, data, model, process=0, num_processes=1, address=None):
    """Train; the first process saves."""
    if address:
        jax.distributed.initialize(address, int(num_processes), int(process))
    mesh = jax.make_mesh((int(data), int(model)), ("data", "model"))
    split = []

    def callback(epoch):
        split.append(jax.tree.leaves(epoch.model)[0].sharding)

    checkpoint = afflow.Checkpoint(Path(out).with_suffix(".checkpoints"))
    flow, history = fit(mesh, checkpoint=checkpoint, callbacks=[callback])
    if int(process) == 0:
        afflow.save([flow, history.train, history.validation], out)
    again, _ = fit(mesh, checkpoint=checkpoint, callbacks=[callback])
    jax.tree.map(np.testing.assert_array_equal, again, flow)
    assert len(split) == 3
    assert split[0].is_fully_addressable


if __name__ == "__main__":
    main(*sys.argv[1:])
