"""A WaveNet and inverse autoregressive flows over sounds, and the losses that start them."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import afflow
from recipes.spoken_windows import Windows


@dataclass(frozen=True)
class Sizes:
    """A teacher, its student, and the steps of their training."""

    length: int = 1600
    """Samples in a window."""
    teacher_layers: int = 10
    """Layers in a stack of the teacher, with dilations 1, 2, 4, ..."""
    teacher_stacks: int = 1
    teacher_channels: int = 32
    flows: int = 4
    layers: int = 8
    """Layers of the network of a flow."""
    channels: int = 16
    batch_size: int = 4
    epochs: tuple[int, int, int] = (1000, 1000, 1000)
    """The most epochs of the teacher, the start and the student; `minutes` ends them before."""
    num_steps: int = 50
    """Steps in an epoch."""
    rate: float = 2e-3
    power_weight: float = 1.0
    held_out: int = 32
    num_samples: int = 120
    """Samples that measure the divergence."""
    duration: int = 4000
    """Samples in a sound."""
    max_recordings: int | None = None


TINY = Sizes(
    length=300,
    teacher_layers=2,
    teacher_channels=4,
    flows=2,
    layers=2,
    channels=4,
    epochs=(1, 1, 2),
    num_steps=2,
    held_out=4,
    num_samples=20,
    duration=400,
    max_recordings=20,
)


def build_teacher(sizes: Sizes, context_dim: int, seed: int) -> afflow.Flow:
    """Return a WaveNet with one normal a sample. Its log-scales stay above -7."""
    dilations = tuple(2**layer for layer in range(sizes.teacher_layers)) * sizes.teacher_stacks
    options = {"channels": sizes.teacher_channels, "context_dim": context_dim}
    network = afflow.conditioners.WaveNet(
        sizes.length, 2, dilations, **options, rngs=nnx.Rngs(seed)
    )
    layer = afflow.MaskedAutoregressive(network, afflow.Affine(7.0))
    return afflow.Flow(afflow.Normal(sizes.length), layer)


def build_student(sizes: Sizes, context_dim: int, seed: int) -> afflow.Flow:
    """Return inverse autoregressive flows of one order; they start as the identity."""
    rngs, options = nnx.Rngs(seed), {"channels": sizes.channels, "context_dim": context_dim}
    dilations = tuple(2**layer for layer in range(sizes.layers))

    def make_layer() -> afflow.Bijector:
        network = afflow.conditioners.WaveNet(sizes.length, 2, dilations, **options, rngs=rngs)
        return afflow.Inverse(afflow.MaskedAutoregressive(network, afflow.Affine(7.0)))

    layers = [make_layer() for _ in range(sizes.flows)]
    return afflow.Flow(afflow.Normal(sizes.length), afflow.Chain(layers))


def lengthen(flow: afflow.Flow, length: int) -> afflow.Flow:
    """Return a flow of WaveNets with the same weights for sounds of another length."""

    def change(bijector: Any) -> afflow.Bijector:
        if isinstance(bijector, afflow.Chain):
            return afflow.Chain([change(part) for part in bijector.bijectors])
        if isinstance(bijector, afflow.Inverse):
            return afflow.Inverse(change(bijector.bijector))
        network = bijector.conditioner.with_length(length)
        return afflow.MaskedAutoregressive(network, bijector.univariate)

    return afflow.Flow(afflow.Normal(length), change(flow.bijector))


def find_likelihood_loss(
    batch_size: int, windows: Windows, teacher: afflow.Flow, key, batch
) -> jax.Array:
    """Return minus the log-density per sample of windows drawn at random."""
    rows = jax.random.randint(key, (batch_size,), 0, len(windows.sounds))
    x = windows.sounds[rows]
    return -teacher.log_prob(x, windows.contexts[rows]).mean() / x.shape[1]


def find_start_loss(
    batch_size: int, teacher: afflow.Flow, windows: Windows, student: afflow.Flow, key, batch
) -> jax.Array:
    """Return the error per sample of the student at the noise that the teacher finds in sounds.

    The teacher's maps at the prefixes of a sound take the sound to noise, and the student's sound
    back to noise. The loss is the mean square of the difference.
    """
    rows = jax.random.randint(key, (batch_size,), 0, len(windows.sounds))

    def find_error(x, context):
        layer = teacher.bijector
        params = layer.conditioner(x, context)
        z = jax.vmap(layer.univariate.inverse)(x, params)
        found = jax.vmap(layer.univariate.inverse)(student.bijector.forward(z, context), params)
        return jnp.square(found - z).mean()

    return jax.vmap(find_error)(windows.sounds[rows], windows.contexts[rows]).mean()
