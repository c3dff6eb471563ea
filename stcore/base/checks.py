"""Checks of settings, in plain Python, when a settings object is made.

Each raises UsageError that names the setting, what was expected and what was received.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from stcore.errors import UsageError

ALIASES: Mapping[str, tuple[str, ...]] = {
    "aa": ("autoattack",),
    "auto-attack": ("autoattack",),
    "amp": ("bf16",),
    "bim": ("ifgsm",),
    "ce": ("cross_entropy", "apgd-ce"),
    "clean": ("natural", "standard"),
    "cos": ("cosine",),
    "cross-entropy": ("cross_entropy", "apgd-ce"),
    "cutout": ("crop-flip-cutout",),
    "cw": ("cw100",),
    "erm": ("standard",),
    "fp16": ("bf16",),
    "i-fgsm": ("ifgsm",),
    "inf": ("linf",),
    "jax": ("keras",),
    "jensen-shannon": ("js",),
    "jsd": ("js",),
    "linear": ("step", "one-cycle"),
    "madry": ("at",),
    "mi-fgsm": ("mifgsm",),
    "multistep": ("step",),
    "mse": ("squared_l2",),
    "natural": ("standard",),
    "normal": ("gaussian", "standard"),
    "onecycle": ("one-cycle",),
    "pgd": ("at", "pgd20"),
    "pgd-at": ("at",),
    "piecewise": ("step",),
    "pytorch": ("torch",),
    "squeeze": ("st",),
    "squeeze-training": ("st",),
    "tensorflow": ("keras",),
    "tf": ("keras",),
    "tex": ("latex",),
    "validation": ("val",),
    "wide-resnet": ("wrn-28-10",),
    "wideresnet": ("wrn-28-10",),
    "wrn": ("wrn-28-10",),
    "zeros": ("natural",),
    "2": ("l2",),
    "l2": ("squared_l2",),
    "l-inf": ("linf",),
    "l-infinity": ("linf",),
    "l∞": ("linf",),
}
"""What others call our names, in lower case with hyphens: the first that is known is suggested."""


def choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raises UsageError if `value` is not one of the known names; suggests the one that was meant."""
    names = tuple(known)
    if value not in names:
        hint = did_you_mean(value, names)
        raise UsageError(f"{name}: expected one of {', '.join(names)}; received {value!r}{hint}")


def did_you_mean(
    value: object, known: Iterable[str], aliases: Mapping[str, tuple[str, ...]] = ALIASES, at_most: int = 1
) -> str:
    """The end of a message about an unknown name: ". Did you mean 'st'?", or nothing if no known name is close.

    Case does not count, nor whether words are joined by hyphens or underscores. at_most: names to suggest.
    """
    folded = {_folded(name): name for name in known}
    meant = _folded(str(value))
    close = [name for name in aliases.get(meant, ()) if name in folded.values()][:1]
    close = close or [folded[name] for name in get_close_matches(meant, folded, n=at_most)]
    return f". Did you mean {' or '.join(map(repr, close))}?" if close else ""


def _folded(name: str) -> str:
    return name.lower().replace("_", "-")


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf) -> None:
    """Raises UsageError unless `value` is a finite number in [low, high]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:
        limits = f"in [{low:g}, {high:g}]" if high < math.inf else f"of at least {low:g}"
        raise UsageError(f"{name}: expected a number {limits}; received {value!r}")


def fraction(text: str) -> float:
    """A number such as 0.03 or a fraction such as 8/255. Raises ValueError for any other text."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"expected a number such as 0.03 or a fraction such as 8/255; received {text!r}"
        ) from None


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
