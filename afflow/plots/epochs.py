"""Samples of a model at chosen epochs of its training."""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from afflow._tools.arguments import check_instance
from afflow._tools.calls import make_typed
from afflow._tools.shapes import check_size
from afflow.plots.panels import BLUE, SMALL, VERMILLION, check_names, check_rows, take_panels, tidy
from afflow.plots.smoothing import find_limits
from afflow.training.callbacks import Epoch


class SampleRecorder:
    """A callback for `fit` that draws and keeps samples of the model after chosen epochs.

    The key and therefore the noise is the same at each epoch.

    Args:
        epochs: the numbers of the epochs, from 0.
        num_samples: the number of samples.
        key: a PRNG key.
        context: one context, for a conditional model.

    Attributes:
        samples: the samples `(num_samples, *event_shape)` of each epoch so far, by its number.

    Example:
        >>> import afflow, jax
        >>> from flax import nnx
        >>> x = jax.random.normal(jax.random.key(0), (200, 2))
        >>> recorder = afflow.plots.SampleRecorder([0, 2], 50, key=jax.random.key(1))
        >>> flow = afflow.maf(2, num_layers=1, hidden=(8,), rngs=nnx.Rngs(0))
        >>> options = {"max_epochs": 3, "progress": False, "callbacks": [recorder]}
        >>> flow, history = afflow.fit(flow, x, key=jax.random.key(2), **options)
        >>> {number: samples.shape for number, samples in recorder.samples.items()}
        {0: (50, 2), 2: (50, 2)}
    """

    def __init__(
        self,
        epochs: Collection[int],
        num_samples: int,
        *,
        key: jax.Array,
        context: jax.Array | None = None,
    ):
        check_size("num_samples", num_samples)
        for epoch in epochs:
            check_size("epoch", epoch, least=0)
        self.epochs, self.num_samples = frozenset(epochs), num_samples
        self.key, self.context = make_typed(key), context
        self.samples: dict[int, np.ndarray] = {}

    def __call__(self, epoch: Epoch) -> None:
        if epoch.number in self.epochs:
            samples = epoch.model.sample(self.key, self.num_samples, self.context)
            self.samples[epoch.number] = np.asarray(samples)


def samples_over_epochs(
    samples: SampleRecorder | Mapping[int, Any],
    *,
    data: jax.Array | np.ndarray | None = None,
    coordinates: tuple[int, int] = (0, 1),
    names: tuple[str, str] | None = None,
    axes: Any = None,
) -> Figure:
    """Draw two coordinates of samples after chosen epochs, one panel an epoch, and of data.

    All panels span the central 99 % of the data, or of the last samples without data, and margins.
    The panel of the data shows as many rows as there are samples.

    Args:
        samples: a recorder that `fit` has called, or samples `(N, D)` by the number of the epoch.
        data: `(M, D)`, for a last panel.
        coordinates: the two coordinates to draw.
        names: their names; by default their numbers.
        axes: an axis for each panel; by default those of a new figure.

    Raises:
        ValueError: for no samples, samples or data of other shapes, coordinates that they do not
            have, or another number of axes.

    Example:
        >>> import afflow, jax
        >>> x = jax.random.normal(jax.random.key(0), (2, 100, 2))
        >>> figure = afflow.plots.samples_over_epochs({0: x[0], 9: 2 * x[1]})
        >>> [panel.get_title() for panel in figure.axes]
        ['epoch 0', 'epoch 9']
    """
    check_instance("samples", samples, (SampleRecorder, Mapping))
    found = samples.samples if isinstance(samples, SampleRecorder) else samples
    parts = {f"epoch {n}": check_rows("samples", x) for n, x in sorted(found.items())}
    if not parts:
        raise ValueError("Expected samples of at least one epoch, got none: pass callbacks to fit.")
    dim = next(iter(parts.values())).shape[1]
    if len(coordinates) != 2 or not set(coordinates) <= set(range(dim)):
        raise ValueError(f"Expected two coordinates from 0 to {dim - 1}, got {coordinates}.")
    last = [*parts.values()][-1] if data is None else check_rows("data", data, dim)
    labels = check_names(names or [f"$x_{{{i}}}$" for i in coordinates], 2)
    if data is not None:
        parts["data"] = last[: max(map(len, parts.values()))]
    limits = [find_limits(last[:, i]) for i in coordinates]
    figure, panels = take_panels(axes, len(parts), size=(2.3, 2.4), columns=5)
    for panel, (title, x) in zip(panels, parts.items(), strict=True):
        color = VERMILLION if title == "data" else BLUE
        panel.scatter(*x[:, coordinates].T, s=3, color=color, alpha=0.5, linewidths=0)
        panel.set(xlim=limits[0], ylim=limits[1])
        panel.set_title(title, fontsize=SMALL + 2)
        panel.set_xlabel(labels[0], fontsize=SMALL + 1)
        tidy(panel)
        if panel is panels[0]:
            panel.set_ylabel(labels[1], fontsize=SMALL + 1)
    return figure
