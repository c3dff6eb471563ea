"""What the paper calls methods, attacks, data sets, networks and radii."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METHODS = {
    "standard": "Normal",
    "at": "AT",
    "trades": "TRADES",
    "mart": "MART",
    "st": "ST",
    "collaborative": "Collaborative (Eq. 5)",
    "at2": "AT†",
    "trades2": "TRADES†",
    "mart2": "MART†",
    "gairat": "GAIRAT",
    "gair-rst": "GAIR-RST",
    "bat": "BAT",
}
ATTACKS = {
    "natural": "Natural",
    "fgsm": "FGSM",
    "pgd20": "PGD-20",
    "pgd100": "PGD-100",
    "cw100": "C&W",
    "autoattack": "AA",
    "pgd_trades": "PGD_TRADES",
    "pgd_rst": "PGD_RST",
}
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN"}
NORMS = {"linf": "l∞", "l2": "l2", "l1": "l1"}


def method(settings: Mapping[str, Any]) -> str:
    """With the weight perturbation, as in ST+AWP, and with extra data, as in TRADES+RST."""
    around = [("extra_data", "extra data"), ("awp", "AWP"), ("rwp", "RWP")]
    return "+".join(
        [METHODS[settings["method"]], *(said for name, said in around if settings.get(name) is not None)]
    )


def attack(name: str) -> str:
    """With how it was made otherwise, if it was."""
    known, space, otherwise = name.partition(" ")
    return f"{ATTACKS.get(known, known)}{space}{otherwise}"


def attacked(name: str, epsilon: float, norm_name: str) -> str:
    """PGD-20 (l∞, ε = 8/255)."""
    return f"{attack(name)} ({norm(norm_name)}, ε = {radius(epsilon)})"


def data(name: str) -> str:
    """The published set, or what a folder is called."""
    kind, _, where = name.partition(":")
    return DATA.get(kind, Path(where).name or kind)


def model(name: str) -> str:
    """ResNet-18 and its like as they are written, others as they are named."""
    return {"resnet18": "ResNet-18", "preact-resnet18": "PreActResNet-18"}.get(
        name, name.upper() if name.startswith("wrn-") else name
    )


def norm(name: str) -> str:
    return NORMS[name]


def radius(value: float) -> str:
    """8/255, where it is some such; 0.2 else."""
    parts = value * 255
    return f"{parts:.0f}/255" if parts < 33 and math.isclose(parts, round(parts), rel_tol=1e-5) else f"{value:.4g}"
