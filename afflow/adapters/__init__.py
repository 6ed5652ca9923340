"""Models of afflow in the forms that other libraries expect, and parts of theirs in flows.

A library is imported when a name that needs it is first used. The functions that convert a trained
flow read the object that they are given, and import no library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from afflow._tools.extras import import_extra
from afflow.adapters.converted.flowjax import from_flowjax
from afflow.adapters.converted.nflows import from_nflows
from afflow.adapters.converted.zuko import from_zuko

if TYPE_CHECKING:
    from afflow.adapters.density_estimator import FlowDensity
    from afflow.adapters.distrax import from_distrax, to_distrax, to_tfp
    from afflow.adapters.numpyro import (
        AutoFlow,
        from_numpyro,
        prior_from_numpyro,
        to_numpyro,
        to_transform,
    )

__all__ = [
    "AutoFlow",
    "FlowDensity",
    "from_distrax",
    "from_flowjax",
    "from_nflows",
    "from_numpyro",
    "from_zuko",
    "prior_from_numpyro",
    "to_distrax",
    "to_numpyro",
    "to_tfp",
    "to_transform",
]

# For each name: its module, the library that the module imports, and the extra with the library.
_DISTRAX = ("distrax", "distrax", "distrax")
_NUMPYRO = ("numpyro", "numpyro", "numpyro")
_HOMES = {
    "AutoFlow": _NUMPYRO,
    "FlowDensity": ("density_estimator", "sklearn", "sklearn"),
    "from_distrax": _DISTRAX,
    "from_numpyro": _NUMPYRO,
    "prior_from_numpyro": _NUMPYRO,
    "to_distrax": _DISTRAX,
    "to_numpyro": _NUMPYRO,
    "to_tfp": _DISTRAX,
    "to_transform": _NUMPYRO,
}


def __getattr__(name: str) -> Any:
    """Import an adapter, and the library that it adapts to, at the first use of its name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, library, extra = _HOMES[name]
    import_extra(library, extra, f"{name} needs")
    return getattr(import_module(f"{__name__}.{module}"), name)
