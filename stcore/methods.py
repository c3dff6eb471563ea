"""The training methods by name: one line each."""

from __future__ import annotations

import dataclasses
from typing import Any

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


def make_objective(method: str, settings: dict[str, Any]) -> Objective:
    """The method with these settings; UsageError for an unknown method, or a setting it does not have."""
    if method not in METHODS:
        raise UsageError(f"method: expected one of {', '.join(METHODS)}; received {method!r}")
    for name in settings:
        if name not in fields(method):
            has = ", ".join(fields(method)) or "none"
            raise UsageError(f"{name}: not a setting of the method {method}, whose settings are: {has}")
    objective: Objective = METHODS[method](**settings)
    return objective
