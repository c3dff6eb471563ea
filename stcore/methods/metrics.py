"""What a step logs of its losses: enough for the figures of training, as means over examples that may be added up.

A mean's deviation needs the mean of the squares, and the mean over some examples their part of the sum and their
share; `told` turns the one into the other when an epoch is over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from stcore.protocols import Ops, Tensor

SQUARED, PART = "_squared", "_part"


def with_squares(**losses: Tensor) -> dict[str, Tensor]:
    """Losses (B,) by name, and their squares."""
    return losses | {f"{name}{SQUARED}": loss * loss for name, loss in losses.items()}


def lower(ops: Ops, natural: Tensor, neighbour: Tensor) -> tuple[Tensor, Tensor]:
    """Of a neighbour's loss (B,): one where it is below the natural one, so collaborative, and zero elsewhere;
    and the loss itself there."""
    one = ops.ones_like(natural)
    below = neighbour < natural
    return ops.where(below, one, one - one), ops.where(below, neighbour, one - one)


def readable(means: Mapping[str, float]) -> dict[str, float]:
    """An epoch's means as they are read.

    `x_loss_squared` becomes `x_loss_deviation`, the standard deviation over its examples; `x_loss_part` becomes
    `x_loss`, the mean over the examples that `x_share` counts, and is left out where there are none.
    """
    shown: dict[str, float] = {}
    for name, value in means.items():
        if name.endswith(SQUARED):
            loss = name.removesuffix(SQUARED)
            shown[f"{loss}_deviation"] = math.sqrt(max(value - means[loss] ** 2, 0.0))
        elif name.endswith(PART):
            loss = name.removesuffix(PART)
            if share := means[loss.replace("_loss", "_share")]:
                shown[loss] = value / share
        else:
            shown[name] = value
    return shown


def means_alone(metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The metrics that are read as they are."""
    return {name: value for name, value in metrics.items() if not name.endswith((SQUARED, PART))}
