"""Checks of the data of a fit: their units, and the symbols of discrete models."""

import warnings
from typing import Any

import numpy as np
from flax import nnx

from afflow.core.conditional import check_values
from afflow.training.rows import Rows

_SEEN = 2**14  # rows that are examined
_MEND = (
    "data=x in the factory (and columns=[afflow.Real(), ...] if float32 does not resolve x), "
    "initialize_actnorm, or Standardize.from_data(x) last in a Chain"
)
_FAR, _WIDE, _NARROW = 10.0, 10.0, 0.05  # limits of a mean, and of standard deviations


def warn_of_scale(flow: Any, rows: Rows) -> None:
    """Warn of columns far from unit scale that the flow does not standardise.

    The columns of the data are examined if no part of the flow has units (`Standardize`, `ActNorm`,
    domains, some bases), and for density models with a continuous conditional. The columns of the
    context are examined unless the network of an `Embedded` has units, as `ZScores` has.

    Args:
        flow: a flow, an ensemble of flows, or any other model.
        rows: the data, or the first minibatch of a `Stream`.
    """
    flow = _unwrap(flow)
    if not getattr(getattr(flow, "conditional", None), "is_discrete", True):
        _warn("x", rows.x, "(x - x.mean(0)) / x.std(0)")
    bijector = getattr(flow, "bijector", None)
    if bijector is None:
        return
    parts = nnx.iter_graph(bijector)
    known = ["network" in path for path, part in parts if getattr(part, "has_units", False)]
    if all(known) and not getattr(flow.base, "has_units", False):
        _warn("x", rows.x, _MEND)
    if rows.context is not None and not any(known):
        _warn("context", rows.context, "data=(x, context) in the factory, or ZScores")


def check_discrete(model: Any, rows: Rows) -> None:
    """Raise `ValueError` for a value in the first rows that a discrete model does not have.

    Args:
        model: any model; one without a discrete conditional has nothing to check.
        rows: the data, or the first minibatch of a `Stream`.
    """
    conditional = getattr(_unwrap(model), "conditional", None)
    if getattr(conditional, "is_discrete", False):
        x = np.asarray(rows.x[:_SEEN])
        check_values(conditional, x, ~np.isnan(x))


def _unwrap(model: Any) -> Any:
    """Return the members of an ensemble, the model of windows, or else the model."""
    for name in ("members", "model"):
        model = getattr(model, name, model)
    return model


def _warn(name: str, values: Any, mend: str) -> None:
    """Warn if one of the columns of `values` is far from unit scale."""
    part = np.asarray(values[:_SEEN], np.float64)
    part = part.reshape(-1, part.shape[-1])  # the columns of an image are its channels
    location, deviation = part.mean(0), part.std(0)
    off = np.abs(location) > _FAR
    off |= (deviation > _WIDE) | ((deviation > 0) & (deviation < _NARROW))
    if off.any():
        worst = [
            f"column {i} is {location[i]:.4g} +- {deviation[i]:.2g}"
            for i in np.flatnonzero(off)[:3]
        ]
        warnings.warn(
            f"Expected {name} of about unit scale, as this model does not standardise: "
            f"{', '.join(worst)}{', ...' if off.sum() > 3 else ''}. Use {mend}.",
            stacklevel=4,
        )
