"""Inner loop of Algorithm 1: K times select from {x, x', x''}, ascend the divergence, project."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from stcore.core.losses import expected_at_label
from stcore.core.search import Search, forward, threat_of
from stcore.methods.triplet import MEMBERS, roles
from stcore.protocols import Mode, Network, Ops, Tensor

Gap: TypeAlias = Callable[[Ops, Tensor, Tensor], Tensor]
"""Collaborative and adversarial log-probabilities (B, C) → their divergence (B,)."""


class SqueezePair(NamedTuple):
    """The adversarial and collaborative examples of a batch: native tensors shaped like x."""

    adversarial: Tensor
    collaborative: Tensor


def ascend(
    model: Network, x: Tensor, y: Tensor, pair: SqueezePair, gap: Gap, search: Search, steps: int
) -> SqueezePair:
    """Returns the pair after `steps` updates in BATCH mode.

    The weights are fixed, so x is forwarded once and its pullback reused. The pair is one batch (2B, …), and the
    triplet one of (3B, …), so that what is done to all of them is done once; each is forwarded on its own.
    """
    if steps == 0:
        return pair
    ops, threat = model.ops, threat_of(search)
    project = threat.projection(ops, ops.concat((x, x)))
    natural, labels = forward(model, x, Mode.BATCH), ops.concat([y] * MEMBERS)
    ones = ops.ones_like(expected_at_label(ops, natural.logits, y))

    def update(pair: Tensor) -> tuple[Tensor]:
        """Selects from the triplet, ascends the divergence, projects: (2B, …)."""
        forwards = (natural, *(forward(model, example, Mode.BATCH) for example in ops.split(pair, 2)))
        log_p, to_logits = ops.vjp(ops.log_softmax, ops.concat([at.logits for at in forwards]))
        selected = roles(ops, expected_at_label(ops, log_p, labels))

        def divergence(log_p: Tensor) -> Tensor:
            adversarial, collaborative = ops.split(ops.take(log_p, selected), 2)
            return gap(ops, collaborative, adversarial)

        _, to_log_p = ops.vjp(divergence, log_p)
        (cotangents,) = to_logits(*to_log_p(ones))  # of the sum over the batch: a signed step ignores scale
        members = zip(forwards, ops.split(cotangents, MEMBERS), strict=True)
        gradients = ops.concat([at.pullback(cotangent)[0] for at, cotangent in members])
        points = ops.take(ops.concat((x, pair)), selected)
        return (project(threat.step(ops, points, ops.take(gradients, selected), search.step_size)),)

    (last,) = ops.fori_loop(steps, update, (ops.concat(pair),))
    return SqueezePair(*ops.split(last, 2))
