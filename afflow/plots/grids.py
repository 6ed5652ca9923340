"""A grid of noise in the plane, pushed through the layers of a flow."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from afflow._tools.arguments import check_instance
from afflow._tools.calls import check_context
from afflow._tools.modules import copy_module
from afflow._tools.shapes import check_size
from afflow.models.flow import Flow
from afflow.plots.panels import BLUE, SMALL, VERMILLION, take_panels, tidy

_FINE = 200  # points of a line


def pushed_grid(
    flow: Flow,
    *,
    context: jax.Array | None = None,
    edge: float = 2.5,
    num_lines: int = 11,
    axes: Any = None,
) -> Figure:
    r"""Draw a square grid of noise as each layer of a flow moves it, from noise to data.

    The first panel shows the grid $[-e, e]^2$. Each further panel shows the image of the grid after
    one more layer. Lines along the first coordinate are blue, and lines along the second one are
    dashed. Where lines are dense, the layers raise the density.

    Args:
        flow: a flow of two coordinates with L layers, as `Bijector.walk` visits them.
        context: one context, for a conditional flow.
        edge: the edge $e$ of the grid, in units of the noise.
        num_lines: the number of lines in each direction.
        axes: `L + 1` axes to draw in; by default those of a new figure.

    Raises:
        ValueError: for a flow of another event shape, a missing or unwanted context, or another
            number of axes.

    Example:
        >>> import afflow
        >>> from flax import nnx
        >>> flow = afflow.maf(2, num_layers=2, hidden=(8,), rngs=nnx.Rngs(0))
        >>> [panel.get_title() for panel in afflow.plots.pushed_grid(flow).axes]
        ['noise', '1: LU', '2: MaskedAutoregressive', '3: LU', '4: MaskedAutoregressive']
    """
    check_instance("flow", flow, Flow)
    check_size("num_lines", num_lines, least=2)
    if flow.event_shape != (2,):
        raise ValueError(f"Expected a flow of event shape (2,), got {flow.event_shape}.")
    titles, images = _push(flow, _make_lines(edge, num_lines), context)
    figure, panels = take_panels(axes, len(images), size=(2.4, 2.4))
    for panel, title, image in zip(panels, titles, images, strict=True):
        along_first, along_second = image.reshape(2, num_lines, _FINE, 2)
        for line in along_second:
            panel.plot(*line.T, color=VERMILLION, linewidth=0.8, linestyle="--")
        for line in along_first:
            panel.plot(*line.T, color=BLUE, linewidth=0.8)
        panel.set_title(title, fontsize=SMALL + 1)
        panel.set_aspect("equal", adjustable="datalim")
        tidy(panel)
    return figure


def _make_lines(edge: float, num_lines: int) -> np.ndarray:
    """Return the points of the lines along each coordinate: `(2 * num_lines * _FINE, 2)`."""
    places, points = np.linspace(-edge, edge, num_lines), np.linspace(-edge, edge, _FINE)
    along_first = np.stack(np.meshgrid(points, places), axis=-1)  # (num_lines, _FINE, 2)
    return np.stack([along_first, along_first[..., ::-1]]).reshape(-1, 2)


def _push(flow: Any, points: np.ndarray, context: Any) -> tuple[list[str], list[np.ndarray]]:
    """Return the title and the points before the first layer and after each layer."""
    titles, images = ["noise"], []

    def visit(layer, batch, _, *, forward):
        name = type(layer).__name__ if forward else f"inverse {type(layer).__name__}"
        titles.append(f"{len(titles)}: {name}")
        images.append(np.asarray(batch))

    context = check_context(flow, context)
    if context is not None:
        context = jnp.broadcast_to(context, (len(points), *flow.context_shape))
    x = jnp.asarray(points, jax.dtypes.canonicalize_dtype(float))
    copy: Any = copy_module(flow)  # a `Repeat` sets its layers anew during a walk
    images.append(np.asarray(copy.bijector.walk(x, context, visit, forward=True)))
    return titles, images
