"""Optional: libraries that only some of the house need, and what to install for them."""

import importlib
from types import ModuleType


def needed(library: str, by: str, *, extra: str) -> ModuleType:
    """Import an optional library.

    Raises:
        ImportError: If it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ImportError(
            f"{by} needs {library}, which is not installed: pip install 'sdegen[{extra}]'."
        ) from error
