"""Pictures of a defence: p-values, and images before and after it."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from recipes.defences import Outcome

SHOWN = 10


def draw_p_values(path: Path, outcomes: dict[str, Outcome]) -> None:
    """Draw histograms of the p-values of each set of images, before and after purification."""
    figure, axes = plt.subplots(
        2, len(outcomes), figsize=(8, 4.2), sharex=True, sharey=True, layout="constrained"
    )
    for (name, outcome), (above, below) in zip(outcomes.items(), axes.T, strict=True):
        parts = (above, "given", outcome.p_values), (below, "purified", outcome.purified_p_values)
        for axis, state, p_values in parts:
            share = np.full(len(p_values), 1 / len(p_values))
            axis.hist(p_values, np.linspace(0, 1, 21), weights=share, color="tab:blue")
            axis.axhline(1 / 20, color="tab:orange", linewidth=0.8)
            axis.set_title(f"{name}, {state}", fontsize=9)
        below.set_xlabel("p-value")
    for axis in axes[:, 0]:
        axis.set(ylabel="share of images", ylim=(0, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_images(path: Path, outcomes: dict[str, Outcome]) -> None:
    """Draw images of each set before and after purification; a red frame marks a wrong class."""
    rows = [
        (f"{name}\n{state}", levels, hits)
        for name, outcome in outcomes.items()
        for state, levels, hits in (
            ("given", outcome.images, outcome.hits),
            ("purified", outcome.purified, outcome.purified_hits),
        )
    ]
    size = min(SHOWN, len(rows[0][1]))
    kept = np.linspace(0, len(rows[0][1]) - 1, size).astype(int)
    figure, axes = plt.subplots(
        len(rows), size, figsize=(8, 5.4), squeeze=False, layout="constrained"
    )
    for row, (name, levels, hits) in zip(axes, rows, strict=True):
        for axis, i in zip(row, kept, strict=True):
            axis.imshow(levels[i], cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set(color="black" if hits[i] else "tab:red", linewidth=1 if hits[i] else 3)
        row[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
