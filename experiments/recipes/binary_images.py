"""Samples and completions of a binary density model of images."""

from pathlib import Path

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from datasets import Split

import afflow


def draw_images(model, data: Split, side: int, path: Path) -> None:
    """Draw samples, and images completed from their upper half or from scattered pixels."""
    dim = side * side
    observed = np.arange(dim) < dim // 2
    if isinstance(model, afflow.OrderAgnosticModel) and not model.natural:
        chance = 0.0 if model.members_only else 0.3
        observed = np.random.default_rng(0).random(dim) < chance
    true = data.test[:: len(data.test) // 8][:8]
    completed = model.complete(np.tile(true, (3, 1)), observed, jax.random.key(1))
    shown = np.where(observed, true, 0.5)
    rows = [*np.asarray(model.sample(jax.random.key(0), 16)).reshape(2, 8, dim), true, shown]
    rows += [*np.asarray(completed).reshape(3, 8, dim)]
    figure, axes = plt.subplots(len(rows), 8, figsize=(6, 5.4), layout="constrained")
    names = "sample", "sample", "true", "observed", "completed", "completed", "completed"
    for row, images, name in zip(axes, rows, names, strict=True):
        for axis, image in zip(row, images, strict=True):
            axis.imshow(image.reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=120)
