"""Libraries that only some parts of afflow need."""

from importlib import import_module
from typing import Any


def import_extra(library: str, extra: str, purpose: str) -> Any:
    """Import a library that an extra of afflow installs.

    Raises:
        ImportError: if the library is missing. The message says the purpose and the extra.
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise ImportError(
            f"Expected {library}, which {purpose}: pip install 'afflow[{extra}]'."
        ) from error
