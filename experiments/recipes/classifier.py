"""A classifier of images, which measures other models and takes no part in them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import afflow

_LEVELS = 255.0


@afflow.saveable
class Classifier(nnx.Module):
    """The probability of the class of an image: convolutions, a hidden layer and a softmax.

    Args:
        shape: the shape of an image, `(H, W)`.
        num_classes: the number of classes.
        channels: the widths of the convolutions.
        width: units of the hidden layer.
        rngs: its `params` stream draws the initial weights.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        num_classes: int = 10,
        channels: tuple[int, ...] = (32, 64),
        width: int = 128,
        *,
        rngs: nnx.Rngs,
    ):
        self.convolutions = afflow.nets.Downsampler((*shape, 1), 32, channels, rngs=rngs)
        places = shape[0] * shape[1] // 4 ** len(channels)
        self.hidden = nnx.Linear(32 * places, width, rngs=rngs)
        self.out = nnx.Linear(width, num_classes, rngs=rngs)

    def compute_logits(self, images: jax.Array) -> jax.Array:
        """Return the logits `(N, num_classes)` of images `(N, H, W)` of grey levels."""
        pixels = images.astype(float)[..., None] / _LEVELS
        features = jax.nn.relu(jax.vmap(self.convolutions)(pixels))
        return self.out(jax.nn.relu(self.hidden(features.reshape(len(features), -1))))

    def log_prob(self, x: jax.Array, context: Any = None) -> jax.Array:
        """Return the log-probability `(B,)` of classes `(B, 1)` of images `(B, H, W)`."""
        logits = jax.nn.log_softmax(self.compute_logits(context))
        return jnp.take_along_axis(logits, x.astype(int), 1)[:, 0]
