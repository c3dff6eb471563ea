"""The training methods by name: one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from stcore import checks
from stcore.adversarial import AdversarialConfig
from stcore.errors import UsageError
from stcore.objective import Objective
from stcore.squeeze import SqueezeConfig
from stcore.standard import StandardConfig

METHODS: dict[str, type[Any]] = {
    "st": SqueezeConfig,
    "at": AdversarialConfig,
    "standard": StandardConfig,
}


def fields(method: str) -> tuple[str, ...]:
    """The settings this method has."""
    return tuple(field.name for field in dataclasses.fields(METHODS[method]))


def check_fields(method: str, names: Iterable[str]) -> None:
    """UsageError for an unknown method, or a name that is not one of its settings."""
    checks.choice("method", method, METHODS)
    for name in names:
        if name not in fields(method):
            has = ", ".join(fields(method)) or "none"
            raise UsageError(f"{name}: not a setting of the method {method}, whose settings are: {has}")


def make_objective(method: str, settings: dict[str, Any]) -> Objective:
    """The method with these settings; UsageError for an unknown method, or a setting it does not have."""
    check_fields(method, settings)
    objective: Objective = METHODS[method](**settings)
    return objective
