"""Training cost of a preset in multiply-accumulates, computed from descriptions without building a network.

Evaluation is not counted: neither after each epoch (about a quarter of squeeze training's own cost for ResNet-18,
methods.md 1.9) nor at the end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stcore import methods, models
from stcore.core.objective import Passes
from stcore.models.description import Conv, GlobalAveragePool, Linear, MaxPool, Node, Residual, Sequence
from stcore.paper.preset import Preset

SIDE = 32
"""The paper's images are 32×32 pixels."""

IMAGES = {"cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257}
CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10}


def estimated_cost(preset: Preset) -> float:
    """Multiply-accumulates of the whole training, every epoch in its most expensive phase, without evaluation.

    A forward of the network counts as one unit, a backward pass to the pixels as one more, and one to pixels and
    weights as two. A weight perturbation repeats the outer passes in each of its steps, from its first epoch.
    """
    settings = preset.settings
    data = settings["dataset"].partition(":")[0]
    batch = settings["batch_size"]
    images = math.ceil(IMAGES[data] / batch) * batch if "extra_data" in settings else IMAGES[data]
    passes, epochs = passes_of(settings), settings["epochs"]
    perturbed = max(epochs - max(settings.get("perturbation_warmup", 0), 1) + 1, 0)
    again = passes.outer_units * perturbation_steps(settings)
    units = epochs * passes.units + perturbed * again
    return float(units) * images * macs_per_image(settings["model"], CLASSES[data])


def passes_of(settings: Mapping[str, Any]) -> Passes:
    """The passes of one training step with these settings."""
    method = settings["method"]
    own = {name: value for name, value in settings.items() if name in methods.fields(method)}
    return methods.make_objective(method, own).passes


def perturbation_steps(settings: Mapping[str, Any]) -> int:
    """The number of weight-perturbation steps in a training step; 0 without weight perturbation."""
    if "rwp" in settings:
        return int(settings["rwp_steps"])
    return 1 if "awp" in settings else 0


def macs_per_image(model: str, num_classes: int = 10, side: int = SIDE) -> int:
    """Multiply-accumulates of the convolutions and linear layers in one forward of one square image."""
    return _macs(models.describe(model, num_classes), side)[0]


def _macs(node: Node, side: int) -> tuple[int, int]:
    """The node's multiply-accumulates for an image of this side, and the side of its output."""
    match node:
        case Sequence(steps):
            total = 0
            for _, step in steps:
                macs, side = _macs(step, side)
                total += macs
            return total, side
        case Residual(body, shortcut):
            (macs, out), beside = _macs(body, side), 0 if shortcut is None else _macs(shortcut, side)[0]
            return macs + beside, out
        case Conv(i, o, kernel, stride):
            side = (side - 1) // stride + 1
            return side * side * kernel * kernel * i * o, side
        case Linear(i, o):
            return i * o, side
        case MaxPool(size):
            return 0, side // size
        case GlobalAveragePool():
            return 0, 1
        case _:
            return 0, side
