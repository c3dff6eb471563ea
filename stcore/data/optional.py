"""Optional packages, imported when first needed."""

import importlib
from types import ModuleType

from stcore.errors import UsageError


def needed(module: str, extra: str = "hub") -> ModuleType:
    """A module of an extra of ours; UsageError that says how to install it if it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"expected the package of {module!r} to read this data set, received: {error}; "
            f"in the repository: pip install '.[{extra}]'"
        ) from error
