"""The triplet {x, x', x''} of squeeze training and its roles (Algorithm 1, Eq. 6)."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from stcore.core.losses import cross_entropy
from stcore.protocols import Ops, Tensor


class Triplet(NamedTuple):
    """One tensor (points, logits, losses or gradients) for each of the three; the earlier wins a tie."""

    natural: Tensor
    adversarial: Tensor
    collaborative: Tensor


Choice: TypeAlias = Callable[[Triplet], Tensor]
"""A triplet of tensors (B, …) → for each example, that of the chosen member."""


def roles(ops: Ops, logits: Triplet, y: Tensor) -> tuple[Choice, Choice]:
    """Assigns the roles per example: the highest loss is adversarial, the lowest collaborative.

    logits: (B, C) of each member. Returns the choice of the highest and of the lowest.
    """
    losses = Triplet(*(cross_entropy(ops, z, y) for z in logits))
    return choice(ops, operator.gt, losses), choice(ops, operator.lt, losses)


def choice(ops: Ops, better: Callable[[Tensor, Tensor], Tensor], scores: Triplet) -> Choice:
    """Returns the choice, for each example, of the member with the best score (B,); the earlier of equals."""
    second = better(scores.adversarial, scores.natural)
    third = better(scores.collaborative, ops.where(second, scores.adversarial, scores.natural))

    def choose(values: Triplet) -> Tensor:
        natural, adversarial, collaborative = values
        first_two = ops.where(ops.expand_dims_like(second, natural), adversarial, natural)
        return ops.where(ops.expand_dims_like(third, natural), collaborative, first_two)

    return choose


def selection_shares(ops: Ops, highest: Choice, lowest: Choice, like: Tensor) -> dict[str, Tensor]:
    """Returns 0/1 flags (B,) per example: pair selected as intended, swapped, or with x in one role."""
    one = ops.ones_like(like)
    zero = one - one
    sides = Triplet(natural=zero, adversarial=one, collaborative=-one)
    order = highest(sides) - lowest(sides)
    intended = ops.where(order > 1.5, one, zero)
    swapped = ops.where(order < -1.5, one, zero)
    return {
        "selected_intended": intended,
        "selected_flipped": swapped,
        "selected_natural": one - intended - swapped,
    }
