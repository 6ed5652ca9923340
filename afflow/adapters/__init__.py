"""Models of afflow in the forms that other libraries expect."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from afflow._tools.extras import import_extra

if TYPE_CHECKING:
    from afflow.adapters.density_estimator import FlowDensity

__all__ = ["FlowDensity"]

# For each name: its module, the library that the module imports, and the extra with the library.
_HOMES = {"FlowDensity": ("density_estimator", "sklearn", "sklearn")}


def __getattr__(name: str) -> Any:
    """Import an adapter, and the library that it adapts to, at the first use of its name."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, library, extra = _HOMES[name]
    import_extra(library, extra, f"{name} needs")
    return getattr(import_module(f"{__name__}.{module}"), name)
