"""A model of two stages: the codes of an image, and a transformer over caption and codes."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from datasets.captions import LENGTH, SHAPE, WORDS, encode_attributes
from datasets.images import LEVELS
from flax import nnx

import afflow
from afflow import AutoregressiveModel
from afflow.models import DiscreteVAE

_PART = 200  # images in memory at a time
_TEXT_WEIGHT = 1 / 8


class Painter(NamedTuple):
    """The two models: images as codes, and the words of a caption followed by codes."""

    vae: DiscreteVAE
    transformer: AutoregressiveModel

    def draw(
        self, key: jax.Array, attributes: np.ndarray, num: int, temperature: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return images `(N, num, H, W)` for the captions of attributes `(N, 3)`.

        The second result says of each image whether each of its tokens is a code `(N, num)`. A
        word in the place of a code counts as code 0.
        """
        prompts, options = encode_attributes(attributes), {"temperature": temperature}
        tokens, _ = self.transformer.generate(key, prompts, shape=num, **options)
        codes = np.asarray(tokens).swapaxes(0, 1)[..., LENGTH:] - len(WORDS)
        grids = np.maximum(codes, 0).reshape(-1, *self.vae.codes_shape)
        images = in_parts(self.vae.decode_median, grids)
        return images.reshape(*codes.shape[:2], *images.shape[1:]), (codes >= 0).all(-1)


def make_tokens(vae: DiscreteVAE, images: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the tokens `(N, LENGTH + h w)` of captioned images: the words, then the codes."""
    codes = in_parts(vae.encode, images).reshape(len(images), -1)
    return np.concatenate([words.astype("u2"), len(WORDS) + codes.astype("u2")], axis=1)


def caption_and_codes(
    model: AutoregressiveModel, key: jax.Array, x: jax.Array, context: Any = None
) -> jax.Array:
    r"""Return the losses `(B,)` of tokens: an eighth of the words' mean and 7/8 of the codes' mean.

    Ramesh et al. 2021, arXiv:2102.12092, section 2.2. An objective of `fit`, in nats per token.
    """
    terms = -model.log_conditionals(x)
    words, codes = terms[:, :LENGTH].mean(-1), terms[:, LENGTH:].mean(-1)
    return _TEXT_WEIGHT * words + (1 - _TEXT_WEIGHT) * codes


def build_vae(
    num_codes: int, channels: tuple[int, ...], kl_weight: float, seed: int
) -> DiscreteVAE:
    """Return the model of the first stage, of grey levels."""
    vae = afflow.zoo.discrete_vae(
        SHAPE,
        num_codes=num_codes,
        channels=channels,
        conditional=afflow.conditionals.DiscretizedLogistics(1, LEVELS["mnist"]),
        rngs=nnx.Rngs(seed),
    )
    return vae.with_kl_weight(kl_weight)


def build_transformer(
    vae: DiscreteVAE, width: int, num_layers: int, rngs: nnx.Rngs
) -> AutoregressiveModel:
    """Return the model of the second stage: words and codes are symbols of one alphabet."""
    length, size = LENGTH + math.prod(vae.codes_shape), len(WORDS) + vae.num_codes
    options = {"features": size, "positions": afflow.nets.Absolute(), "rngs": rngs}
    network = afflow.conditioners.Transformer(
        length, size, width=width, num_layers=num_layers, **options
    )
    return AutoregressiveModel(network, afflow.conditionals.Categorical(size))


def in_parts(f: Callable, x: np.ndarray) -> np.ndarray:
    """Return `f(x)` for rows `x`, computed for some rows at a time."""
    return np.concatenate([np.asarray(f(x[i : i + _PART])) for i in range(0, len(x), _PART)])
