"""Metrics of a step, as means over examples that can be averaged over an epoch.

A standard deviation needs the mean of the squares; a mean over some of the examples needs their part of the sum
and their share. `readable` turns these into an epoch's metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from stcore.protocols import Ops, Tensor

SQUARED, PART = "_squared", "_part"


def with_squares(**losses: Tensor) -> dict[str, Tensor]:
    """Returns losses (B,) by name, and their squares."""
    return losses | {f"{name}{SQUARED}": loss * loss for name, loss in losses.items()}


def lower(ops: Ops, natural: Tensor, neighbour: Tensor) -> tuple[Tensor, Tensor]:
    """Returns 1 for each collaborative neighbour (loss below the natural one), else 0; and its loss, else 0.

    natural, neighbour: losses (B,). Both results are (B,).
    """
    one = ops.ones_like(natural)
    zero = one - one
    below = neighbour < natural
    return ops.where(below, one, zero), ops.where(below, neighbour, zero)


def readable(means: Mapping[str, float]) -> dict[str, float]:
    """Turns an epoch's means into the metrics that are logged.

    `x_loss_squared` becomes `x_loss_deviation`, the standard deviation over examples; `x_loss_part` and
    `x_error_part` become `x_loss` and `x_error`, the means over the examples that `x_share` counts, and are left
    out if there are none.
    """
    shown: dict[str, float] = {}
    for name, value in means.items():
        if name.endswith(SQUARED):
            loss = name.removesuffix(SQUARED)
            shown[f"{loss}_deviation"] = math.sqrt(max(value - means[loss] ** 2, 0.0))
        elif name.endswith(PART):
            loss = name.removesuffix(PART)
            if share := means[f"{loss.rpartition('_')[0]}_share"]:
                shown[loss] = value / share
        else:
            shown[name] = value
    return shown


def means_alone(metrics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the metrics that need no conversion by `readable`."""
    return {name: value for name, value in metrics.items() if not name.endswith((SQUARED, PART))}
