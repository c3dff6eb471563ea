"""Checks of settings, in plain Python, when a settings object is made.

Each raises UsageError that names the setting, what was expected and what was received.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from stcore.errors import UsageError


def choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raises UsageError unless `value` is one of the known names."""
    names = tuple(known)
    if value not in names:
        raise UsageError(f"{name}: expected one of {', '.join(names)}; received {value!r}")


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> None:
    """Raises UsageError unless `value` is a finite number in [low, high]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:
        limits = f"in [{low:g}, {high:g}]" if high < math.inf else f"of at least {low:g}"
        raise UsageError(f"{name}: expected a number {limits}; received {value!r}")


def whole(name: str, value: Any, low: int = 0) -> None:
    """Raises UsageError unless `value` is a whole number of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise UsageError(f"{name}: expected a whole number of at least {low}; received {value!r}")


def ball(config: Any, norms: Iterable[str] = ("linf", "l2")) -> None:
    """Checks the fields that bound a perturbation: epsilon, norm, bounds."""
    choice("norm", config.norm, norms)
    bounds = config.bounds
    if len(bounds) != 2 or not bounds[0] < bounds[1]:
        raise UsageError(f"bounds: expected (low, high) with low < high; received {bounds!r}")
    span = bounds[1] - bounds[0] if config.norm == "linf" else math.inf
    number("epsilon (in units of pixels in [0, 1], such as 8/255)", config.epsilon, high=span)


def search(config: Any, inits: Iterable[str]) -> None:
    """Checks the fields of every search: epsilon, step_size, steps, init, noise_std, norm, bounds."""
    ball(config)
    number("step_size", config.step_size)
    whole("steps", config.steps)
    choice("init", config.init, inits)
    number("noise_std", config.noise_std)
