"""The triplet {x, x', x''} of squeeze training, and who plays which role in it (Algorithm 1, Eq. 6)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from stcore.core.losses import cross_entropy
from stcore.protocols import Ops, Tensor


class Triplet(NamedTuple):
    """One thing (points, logits, losses, gradients) for each of the three; the earlier wins a tie."""

    natural: Tensor
    adversarial: Tensor
    collaborative: Tensor


Choice: TypeAlias = Callable[[Triplet], Tensor]


def roles(ops: Ops, logits: Triplet, y: Tensor) -> tuple[Choice, Choice]:
    """Per example, who of the three has the highest loss (is adversarial) and who the lowest (collaborative)."""
    losses = Triplet(*(cross_entropy(ops, z, y) for z in logits))
    return choice(ops, operator.gt, losses), choice(ops, operator.lt, losses)


def choice(ops: Ops, better: Callable[[Tensor, Tensor], Tensor], scores: Triplet) -> Choice:
    """Picks, for each example, the member whose score (B,) is best; the earlier of equals."""
    second = better(scores.adversarial, scores.natural)
    third = better(scores.collaborative, ops.where(second, scores.adversarial, scores.natural))

    def choose(values: Triplet) -> Tensor:
        natural, adversarial, collaborative = values
        first_two = ops.where(ops.expand_dims_like(second, natural), adversarial, natural)
        return ops.where(ops.expand_dims_like(third, natural), collaborative, first_two)

    return choose


def selection_shares(ops: Ops, highest: Choice, lowest: Choice, like: Tensor) -> dict[str, Tensor]:
    """One or zero per example (B,): were x' and x'' chosen as intended, flipped, or x for one of the two?"""
    one = ops.ones_like(like)
    zero = one - one
    sides = Triplet(natural=zero, adversarial=one, collaborative=-one)
    order = highest(sides) - lowest(sides)
    intended = ops.where(order > 1.5, one, zero)
    flipped = ops.where(order < -1.5, one, zero)
    return {
        "selected_intended": intended,
        "selected_flipped": flipped,
        "selected_natural": one - intended - flipped,
    }
