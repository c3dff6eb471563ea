"""Optional packages, imported when first needed."""

import importlib
from types import ModuleType

from stcore.errors import UsageError


def hub(module: str) -> ModuleType:
    """A module of the `hub` extra; UsageError that says how to install it if it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"expected the package of {module!r} to read parquet images, received: {error}; "
            "in the repository: pip install '.[hub]'"
        ) from error
