"""The balls that a method trains in, by name: NORM:RADIUS, such as linf:8/255."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stcore.attacks.short_apgd import NORMS
from stcore.base import checks
from stcore.core.threat import radius_of


def balls_of(settings: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The norm and radius of each ball that a method with these settings trains in; of most methods one."""
    if "balls" in settings:
        return read_balls(tuple(settings["balls"]))
    return [(settings["norm"], settings["epsilon"])] if {"norm", "epsilon"} <= settings.keys() else []


def read_balls(balls: tuple[str, ...]) -> list[tuple[str, float]]:
    """The norm and radius of each NORM:RADIUS. Raises UsageError if one cannot be read."""
    found = []
    for ball in balls:
        norm, _, radius = str(ball).partition(":")
        checks.choice(f"balls: the norm in {ball}", norm, NORMS)
        found.append((norm, radius_of("balls", ball, norm, radius)))
    return found
