"""Packages of an extra, which are imported when they are asked for."""

from __future__ import annotations

import importlib
from typing import Any

from stcore.errors import UsageError


def of_extra(option: str, package: str, extra: str) -> Any:
    """The package. Raises UsageError, with the option that asks for it and the extra, if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UsageError(
            f"{option}: expected the package {package}; received: {error}; pip install 'stcore[{extra}]'"
        ) from error
