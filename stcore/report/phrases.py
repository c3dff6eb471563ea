"""How a report says what it says again and again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stcore.report.blocks import Cell
from stcore.results import names

METHODS = {
    "st": "squeeze training (ST)",
    "standard": "standard training",
    "at": "adversarial training (AT)",
    "trades": "TRADES",
    "mart": "MART",
    "collaborative": "training on collaborative examples (Eq. 5)",
    "at2": "AT with two examples (AT†)",
    "trades2": "TRADES with two examples (TRADES†)",
    "mart2": "MART with two examples (MART†)",
    "gairat": "GAIRAT",
    "gair-rst": "GAIR-RST",
    "bat": "bridged adversarial training (BAT)",
}

ATTACKS = {
    "natural": "natural",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "pgd100": "PGD-100",
    "cw100": "C&W-100",
    "autoattack": "AutoAttack",
    "autoattack-fast": "AutoAttack (fast)",
    "ifgsm": "I-FGSM",
    "mifgsm": "MI-FGSM",
    "deepfool": "DeepFool",
}


def attack(name: str) -> str:
    """As papers write it."""
    return ATTACKS.get(name, name)


def accuracy(score: Mapping[str, Any]) -> Cell:
    """A result's accuracy in percent, with its interval."""
    low, high = score["interval_95"]
    return Cell(percent(score["accuracy"]), f"[{percent(low)}, {percent(high)}]")


def percent(share: float) -> str:
    """A share in [0, 1] as percent, to hundredths."""
    return f"{100 * share:.2f}"


def radius(value: float, norm: str = "linf") -> str:
    """ε = 8/255 in l∞, or ε = 0.5 in l2."""
    return f"ε = {names.radius(value)} in {names.norm(norm)}".replace(" ", "\u00a0")  # it stays in one line


def value(given: Any) -> str:
    """A setting."""
    if isinstance(given, (tuple, list)):
        return ", ".join(map(value, given)) or "none"
    if isinstance(given, bool) or given is None:
        return {True: "yes", False: "no", None: "none"}[given]
    return f"{given:.6g}" if isinstance(given, float) else str(given)


def listed(words: Sequence[str]) -> str:
    """one, two and three."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def duration(seconds: float) -> str:
    """12 s, 3.5 min or 2.1 h."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def plural(count: int, noun: str) -> str:
    """1 epoch, 2 epochs, 3 classes."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending * (count != 1)}"
