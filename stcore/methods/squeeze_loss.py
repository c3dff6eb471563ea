"""The loss of squeeze training (Eq. 6): the last selection, and the divergence of those selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from stcore.core.divergences import DIVERGENCES, Divergence
from stcore.core.losses import cross_entropy, smoothed
from stcore.core.objective import PerExample
from stcore.methods.metrics import with_squares
from stcore.methods.triplet import roles, selection_shares
from stcore.protocols import Ops, Tensor


class Squeeze(Protocol):
    """The settings of Eq. 6."""

    @property
    def beta(self) -> float: ...
    @property
    def divergence(self) -> str | Divergence: ...
    @property
    def stop_gradient_targets(self) -> bool: ...
    @property
    def label_smoothing(self) -> float: ...


def squeeze(ops: Ops, members: Sequence[Tensor], y: Tensor, config: Squeeze) -> PerExample:
    """Selects once more, on the logits of the loss; returns CE + β · divergence (B,) and metrics.

    members: logits (B, C) of x, x' and x''; of x and x' alone if x is the collaborative example too.
    """
    logits, count = ops.concat(members), len(members)
    losses = cross_entropy(ops, logits, ops.concat([y] * count))
    selected = roles(ops, -losses, count)
    natural, *_ = ops.split(losses, count)
    adversarial, collaborative = map(ops.log_softmax, ops.split(ops.take(logits, selected), 2))
    gap = DIVERGENCES.find(config.divergence)(ops, collaborative, adversarial, config.stop_gradient_targets)
    adversarial_loss, collaborative_loss = ops.split(ops.take(losses, selected), 2)
    metrics = {
        **with_squares(
            natural_loss=natural, adversarial_loss=adversarial_loss, collaborative_loss=collaborative_loss
        ),
        "divergence": gap,
        **selection_shares(ops, selected, natural, count),
    }
    target = smoothed(ops, natural, members[0], config.label_smoothing)
    return PerExample(target + config.beta * gap, metrics)
