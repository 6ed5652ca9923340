"""Images of digits for captions: ranked by a critic, judged, and shown."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from datasets.captions import CaptionedDigits, Captions, encode_attributes, write

from recipes.classifier import Classifier
from recipes.critic import Critic
from recipes.painter import Painter, in_parts

Judge = Callable[[np.ndarray, np.ndarray], np.ndarray]
KINDS = "digit", "thickness", "slant", "all"


def judge(
    captions: Captions, classifier: Classifier, images: np.ndarray, attributes: np.ndarray
) -> np.ndarray:
    """Return whether images `(..., H, W)` obey their captions, `(..., 4)` in the order of `KINDS`.

    Args:
        captions: the thresholds of the measured attributes.
        classifier: reads the digits.
        images: the images.
        attributes: the attributes in the captions `(..., 3)`.
    """
    flat = images.reshape(-1, *images.shape[-2:])
    found = captions.describe(flat, classify(classifier, flat)).reshape(*images.shape[:-2], 3)
    right = found == attributes
    return np.concatenate([right, right.all(-1, keepdims=True)], axis=-1)


def classify(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Return the most probable digits `(N,)` of images `(N, H, W)`."""
    return in_parts(jax.jit(classifier.compute_logits), images).argmax(-1)


def rank(critic: Critic, images: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Return the places `(N, num)` of images `(N, num, H, W)`, the critic's favourite first."""
    u = in_parts(jax.jit(critic.embed_images), images.reshape(-1, *images.shape[2:]))
    v = critic.embed_captions(jnp.asarray(encode_attributes(attributes)))
    scores = np.einsum("nkd,nd->nk", u.reshape(*images.shape[:2], -1), v)
    return np.argsort(-scores, axis=1)


def summarize(right: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the share of right images of each kind, with its standard error.

    Args:
        right: booleans `(N, num, 4)`, `num` images for each of `N` captions. The captions are
            taken as independent, the images of a caption are not.
    """
    shares = right.mean(1)
    errors = shares.std(0, ddof=1) / np.sqrt(len(shares))
    return {
        kind: {"share": float(share), "standard_error": float(error)}
        for kind, share, error in zip(KINDS, shares.mean(0), errors, strict=True)
    }


def summarize_by_digit(right: np.ndarray, attributes: np.ndarray) -> list[float]:
    """Return the share of images with the right digit, for each digit from 0 to 9.

    Args:
        right: as in `summarize`.
        attributes: the attributes in the captions `(N, 3)`.
    """
    return [right[attributes[:, 0] == digit, :, 0].mean().item() for digit in range(10)]


def measure_test_images(
    data: CaptionedDigits, painter: Painter, classifier: Classifier, obeys: Judge
):
    """Return scores of the test images: the bound of the autoencoder, and limits of the judge."""
    x, wanted = data.images.test, data.attributes.test
    bounds = in_parts(partial(painter.vae.elbo, jax.random.key(0)), x)
    decoded = in_parts(lambda x: painter.vae.decode_median(painter.vae.encode(x)), x)
    return {
        "classifier_accuracy": np.mean(classify(classifier, x) == wanted[:, 0]),
        "encoded_and_decoded": summarize(obeys(decoded, wanted)[:, None]),
        "bound_nats": bounds.mean(),
        "bound_standard_error": bounds.std(ddof=1) / np.sqrt(len(bounds)),
    }


def draw_figure(path: Path, attributes: np.ndarray, images: np.ndarray, right: np.ndarray) -> None:
    """Draw ranked images `(N, num, H, W)` in a row for each caption, the best on the left.

    An image with a wrong digit has an orange frame.
    """
    shape = images.shape[:2]
    figure, axes = plt.subplots(
        *shape, figsize=(2.2 + 0.5 * shape[1], 0.55 * shape[0]), squeeze=False
    )
    for row, facts, shown, good in zip(axes, attributes, images, right[..., 0], strict=True):
        for axis, image, is_right in zip(row, shown, good, strict=True):
            axis.imshow(image, cmap="gray_r", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set(color="lightgray" if is_right else "tab:orange", linewidth=1.5)
        label = {"rotation": 0, "ha": "right", "va": "center", "fontsize": 8}
        row[0].set_ylabel(write(facts), **label)
    figure.subplots_adjust(left=2.0 / (2.2 + 0.5 * shape[1]), right=0.99, top=0.99, bottom=0.01)
    figure.savefig(path, dpi=120)
    plt.close(figure)
