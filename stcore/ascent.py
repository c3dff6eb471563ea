"""Projected gradient ascent on a loss: the one loop behind FGSM, PGD and the baselines' inner search (Eq. 1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from stcore.forward import Forward, forward
from stcore.protocols import Mode, Network, Tensor
from stcore.search import Search, threat_of

Loss: TypeAlias = Callable[[Tensor], Tensor]
"""Logits (B, C) → a value per example (B,)."""


def ascend(model: Network, x: Tensor, start: Tensor, loss: Loss, search: Search) -> Tensor:
    """The last of `search.steps` iterates from `start` uphill on `loss`, around x, under running statistics."""

    def body(point: Tensor) -> tuple[Tensor]:
        return (_uphill(model, x, point, forward(model, point, Mode.EVAL), loss, search),)

    (point,) = model.ops.fori_loop(search.steps, body, (start,))
    return point


def ascend_and_tally(
    model: Network, x: Tensor, start: Tensor, loss: Loss, search: Search, tally: Loss
) -> tuple[Tensor, Tensor]:
    """The same, and (B,) the sum of `tally` over the iterates that a step was taken from."""
    nothing = model.ops.sum(x - x)

    def body(point: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        here = forward(model, point, Mode.EVAL)
        return _uphill(model, x, point, here, loss, search), count + tally(here.logits)

    point, count = model.ops.fori_loop(search.steps, body, (start, nothing))
    return point, count


def _uphill(model: Network, x: Tensor, point: Tensor, here: Forward, loss: Loss, search: Search) -> Tensor:
    ops, threat = model.ops, threat_of(search)
    value, pullback = ops.vjp(loss, here.logits)
    (cotangent,) = pullback(ops.ones_like(value))  # of the sum over the batch: a sign knows no scale
    (gradient,) = here.pullback(cotangent)
    return threat.project(ops, threat.step(ops, point, gradient, search.step_size), x)
