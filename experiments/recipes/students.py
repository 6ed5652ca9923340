"""A student for a masked autoregressive flow: its layers read backwards, started one by one."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.tree_util import Partial

import afflow


def mirror(teacher: afflow.Flow, hidden: tuple[int, ...], seed: int) -> afflow.Flow:
    r"""Return an IAF that can equal the teacher if its networks are wide enough.

    A layer of the teacher is affine in its noise, $y_t = \mu_t(y_{<t}) + \sigma_t(y_{<t})\, x_t$.
    Since $y_{<t}$ is a function of $x_{<t}$, the same map is an inverse autoregressive layer whose
    network reads $x_{<t}$. The maps between the layers, and the units, are the teacher's.

    Args:
        teacher: the flow of `recipes.benchmarks.build`.
        hidden: the widths of the student's residual networks.
        seed: draws the initial weights.
    """
    steps, units = teacher.bijector.bijectors
    dim, univariate = teacher.event_shape[0], steps.layers.bijectors[0].univariate
    mixes = iter([copy.bijectors[1] for copy in unstack(steps)])

    def step(rngs: nnx.Rngs) -> afflow.Bijector:
        made = afflow.MADE(dim, 2, hidden, residual=True, rngs=rngs)
        layer = afflow.MaskedAutoregressive(made, univariate)
        return afflow.Chain([afflow.Inverse(layer), next(mixes)])

    layers = afflow.Repeat(step, len(unstack(steps)), rngs=nnx.Rngs(seed))
    return afflow.Flow(teacher.base, afflow.Chain([layers, units]))


def unstack(steps: afflow.Repeat) -> list[Any]:
    """Return the copies of a repeated bijector."""
    n = len(jax.tree.leaves(steps)[0])
    return [jax.tree.map(lambda leaf, i=i: leaf[i], steps.layers) for i in range(n)]


def start_layers(
    teacher: afflow.Flow, student: afflow.Flow, batch_size: int, **options: Any
) -> tuple[afflow.Flow, afflow.training.History]:
    r"""Fit each layer of a mirrored student to its layer of the teacher, all side by side.

    The noise $x$ at the input of a layer of the teacher has the image $y$. The teacher's scalar
    maps at the prefixes of $y$ take the student's $\hat y_t(x_{\le t})$ back to noise $\hat x_t$.
    The loss is $\sum_t (\hat x_t - x_t)^2$, summed over layers: the error of a location and of a
    scale, in units of the teacher's scale.

    Args:
        teacher: the flow of `recipes.benchmarks.build`.
        student: its `mirror`.
        batch_size: the number of samples in a step.
        **options: see `afflow.training.train`.
    """
    loss = Partial(_Start(batch_size), teacher)
    return afflow.training.train(student, loss, **options)


@dataclass(frozen=True)
class _Start:
    """The loss of `start_layers`."""

    batch_size: int

    def __call__(self, teacher, student, key, batch):
        def layer(x, pair):
            theirs, ours = pair
            y = theirs.bijectors[0].forward(x)
            error = read_noise(theirs.bijectors[0], y, ours.bijectors[0].forward(x)) - x
            return theirs.bijectors[1].forward(y), jnp.sum(error**2)

        def find_loss(x):
            pairs = teacher.bijector.bijectors[0].layers, student.bijector.bijectors[0].layers
            return jax.lax.scan(layer, x, pairs)[1].sum()

        x = jax.random.normal(key, (self.batch_size, *teacher.event_shape))
        return jax.vmap(find_loss)(x).mean()


def read_noise(layer: afflow.MaskedAutoregressive, y: jax.Array, v: jax.Array) -> jax.Array:
    """Return the noise of each `v[t]` by the scalar map of the layer at the prefix `y[:t]`."""
    return jax.vmap(layer.univariate.inverse)(v, layer.conditioner(y))
