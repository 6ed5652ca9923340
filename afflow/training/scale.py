"""A warning of data that a flow will not learn from, because of their units."""

import warnings
from typing import Any

import numpy as np
from flax import nnx

from afflow.training.rows import Rows

_SEEN = 2**14  # rows that are looked at
_MEND = "data=x in the factory, initialize_actnorm, or Standardize.from_data(x) last in a Chain"
_FAR, _WIDE, _NARROW = 10.0, 10.0, 0.05  # a location, and deviations, next to a standard normal's


def warn_of_scale(flow: Any, rows: Rows) -> None:
    """Warn of columns far from standard ones where the flow does not standardise them.

    The columns of the data are looked at if no part of the flow has units (`Standardize`,
    `ActNorm`, domains), those of the context if no `Embedded` is there to scale them.
    """
    bijector = getattr(flow, "bijector", None)
    if bijector is None or getattr(flow.base, "has_units", False):
        return
    parts = list(nnx.iter_graph(bijector))
    if not any(getattr(part, "has_units", False) and "network" not in path for path, part in parts):
        _warn(
            "x",
            rows.x,
            _MEND,
        )
    if rows.context is not None and not any("network" in path for path, _ in parts):
        _warn("context", rows.context, "data=(x, context) in the factory, or ZScores")


def _warn(name: str, values: Any, mend: str) -> None:
    part = np.asarray(values[:_SEEN], np.float64)
    part = part.reshape(-1, part.shape[-1])  # the channels of an image
    location, deviation = part.mean(0), part.std(0)
    off = np.abs(location) > _FAR
    off |= (deviation > _WIDE) | ((deviation > 0) & (deviation < _NARROW))
    if off.any():
        worst = [
            f"column {i} is {location[i]:.4g} +- {deviation[i]:.2g}"
            for i in np.flatnonzero(off)[:3]
        ]
        warnings.warn(
            f"Expected {name} of about unit scale, as this flow does not standardise: "
            f"{', '.join(worst)}{', ...' if off.sum() > 3 else ''}. Use {mend}.",
            stacklevel=4,
        )
