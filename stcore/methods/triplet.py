"""The triplet {x, x', x''} of squeeze training and its roles (Algorithm 1, Eq. 6).

A triplet is one batch (3B, …): the natural examples, the adversarial ones, the collaborative ones.
"""

from __future__ import annotations

from stcore.protocols import Ops, Tensor

MEMBERS = 3


def roles(ops: Ops, confidence: Tensor, members: int = MEMBERS) -> Tensor:
    """Assigns the roles per example: the lowest confidence is adversarial, the highest collaborative.

    confidence: log p_y (3B,) of a triplet. Returns the rows (2B,) of the triplet that were selected: the
    adversarial ones, then the collaborative ones; of equals the earlier member.
    members: 2 for a pair {x, x'} whose x is the collaborative example too.
    """
    return ops.extremes(confidence, members)


def selection_shares(ops: Ops, selected: Tensor, like: Tensor, members: int = MEMBERS) -> dict[str, Tensor]:
    """Returns 0/1 flags (B,) per example: pair selected as intended, swapped, or with x in one role.

    selected: from `roles`, of as many members.   like: any (B,).
    """
    one = ops.ones_like(like)
    zero = one - one
    places = (zero, one, -one) if members == MEMBERS else (-one, one)
    adversarial, collaborative = ops.split(ops.take(ops.concat(places), selected), 2)
    order = adversarial - collaborative
    intended = ops.where(order > 1.5, one, zero)
    swapped = ops.where(order < -1.5, one, zero)
    return {
        "selected_intended": intended,
        "selected_flipped": swapped,
        "selected_natural": one - intended - swapped,
    }
