"""Projected gradient ascent on a loss, the one loop behind FGSM, PGD and adversarial training (Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from stcore.protocols import Classifier, Mode, Ops, Tensor
from stcore.search import Search, threat_of

Loss: TypeAlias = Callable[[Ops, Tensor, Tensor], Tensor]
"""Logits (B, C) and labels (B,) → per-example loss (B,)."""


def ascend(model: Classifier, x: Tensor, y: Tensor, start: Tensor, loss: Loss, search: Search) -> Tensor:
    """The last of `search.steps` iterates from `start` uphill on `loss`, around x, under running statistics."""
    ops, threat = model.ops, threat_of(search)

    def body(point: Tensor) -> tuple[Tensor]:
        value, pullback = ops.vjp(lambda pixels: loss(ops, model.logits(pixels, Mode.EVAL), y), point)
        (gradient,) = pullback(ops.ones_like(value))  # of the sum over the batch
        return (threat.project(ops, threat.step(ops, point, gradient, search.step_size), x),)

    (point,) = ops.fori_loop(search.steps, body, (start,))
    return point
