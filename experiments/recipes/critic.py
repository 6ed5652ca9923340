"""A critic of images and captions: two networks whose outputs agree for a right pair."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import afflow

_START = 10.0  # the factor of the cosines at the start
_LEVELS = 255.0


@afflow.saveable
class Critic(nnx.Module):
    r"""Two towers, one for images and one for captions, whose outputs are unit vectors.

    The score of a pair is the product of the two vectors. In a minibatch, the right pairs are told
    from the wrong ones by

    $$\tfrac12 \log \frac{e^{a\,u_i v_i}}{\sum_j e^{a\,u_i v_j}}
    + \tfrac12 \log \frac{e^{a\,u_i v_i}}{\sum_j e^{a\,u_j v_i}},$$

    with the vectors $u$ of images and $v$ of captions, and a trained factor $a$. Sums leave out
    other rows that have the caption of row $i$, for these pairs are right as well.

    Radford et al. 2021, arXiv:2103.00020.

    Args:
        shape: the shape of an image, `(H, W)`.
        num_words: the number of different words.
        length: the number of words in a caption.
        width: the length of the vectors.
        channels: the widths of the convolutions.
        rngs: its `params` stream draws the initial weights.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        num_words: int,
        length: int,
        width: int = 64,
        channels: tuple[int, ...] = (32, 64),
        *,
        rngs: nnx.Rngs,
    ):
        self.num_words = num_words
        self.convolutions = afflow.nets.Downsampler((*shape, 1), 16, channels, rngs=rngs)
        places = shape[0] * shape[1] // 4 ** len(channels)
        self.image = nnx.Linear(16 * places, width, rngs=rngs)
        self.words = nnx.Linear(length * num_words, width, rngs=rngs)
        self.caption = nnx.Linear(width, width, rngs=rngs)
        self.log_factor = nnx.Param(jnp.log(jnp.array(_START)))

    def embed_images(self, images: jax.Array) -> jax.Array:
        """Return unit vectors `(N, width)` of images `(N, H, W)` of grey levels."""
        pixels = images.astype(float)[..., None] / _LEVELS
        features = jax.nn.relu(jax.vmap(self.convolutions)(pixels))
        return _scale_to_unit(self.image(features.reshape(len(features), -1)))

    def embed_captions(self, words: jax.Array) -> jax.Array:
        """Return unit vectors `(N, width)` of captions `(N, length)`."""
        seen = jax.nn.one_hot(words, self.num_words).reshape(len(words), -1)
        return _scale_to_unit(self.caption(jax.nn.relu(self.words(seen))))

    def score(self, images: jax.Array, words: jax.Array) -> jax.Array:
        """Return the scores `(N,)` of pairs of images and captions, from -1 to 1."""
        return (self.embed_images(images) * self.embed_captions(words)).sum(-1)

    def log_prob(self, x: jax.Array, context: Any = None) -> jax.Array:
        """Return how well the right pairs of a minibatch are told from the others, `(B,)` in nats.

        Args:
            x: images `(B, H, W)`.
            context: their captions `(B, length)`.
        """
        factor = jnp.exp(self.log_factor[...])
        products = factor * self.embed_images(x) @ self.embed_captions(context).T  # (B, B)
        equal = (context[:, None] == context[None]).all(-1)
        others = ~equal | jnp.eye(len(x), dtype=bool)
        products = jnp.where(others, products, -jnp.inf)
        by_image, by_caption = (jax.nn.log_softmax(products, axis) for axis in (1, 0))
        return (jnp.diagonal(by_image) + jnp.diagonal(by_caption)) / 2


def _scale_to_unit(h: jax.Array) -> jax.Array:
    return h * jax.lax.rsqrt(jnp.square(h).sum(-1, keepdims=True) + 1e-6)
