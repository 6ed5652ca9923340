"""Adapters: flows in other libraries, and the distributions of other libraries in flows.

The names need NumPyro, which the extra `numpyro` installs. NumPyro is imported when a name is first
used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from afflow._tools.extras import import_extra

if TYPE_CHECKING:
    from afflow.adapters.numpyro import AutoFlow, from_numpyro, to_numpyro, to_transform

__all__ = ["AutoFlow", "from_numpyro", "to_numpyro", "to_transform"]


def __getattr__(name: str) -> Any:
    """Return a public name. Import the library that it adapts to, if this is the first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_extra("numpyro", "numpyro", "the adapters to NumPyro need")
    return getattr(import_module("afflow.adapters.numpyro"), name)
