"""Inner loop of Algorithm 1: K times select from {x, x', x''}, ascend the divergence, project."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from stcore.core.search import Forward, Search, forward, threat_of
from stcore.methods.triplet import Choice, Triplet, roles
from stcore.protocols import Mode, Network, Ops, Tensor

Gap: TypeAlias = Callable[[Ops, Tensor, Tensor], Tensor]
"""Collaborative and adversarial logits (B, C) → their divergence (B,)."""


class SqueezePair(NamedTuple):
    """The adversarial and collaborative examples of a batch: native tensors shaped like x."""

    adversarial: Tensor
    collaborative: Tensor


def ascend(
    model: Network, x: Tensor, y: Tensor, pair: SqueezePair, gap: Gap, search: Search, steps: int
) -> SqueezePair:
    """Returns the pair after `steps` updates in BATCH mode.

    The weights are fixed, so x is forwarded once and its pullback reused.
    """
    if steps == 0:
        return pair
    natural = forward(model, x, Mode.BATCH)

    def body(adversarial: Tensor, collaborative: Tensor) -> SqueezePair:
        return update(model, x, y, natural, SqueezePair(adversarial, collaborative), gap, search)

    return SqueezePair(*model.ops.fori_loop(steps, body, pair))


def update(
    model: Network, x: Tensor, y: Tensor, natural: Forward, pair: SqueezePair, gap: Gap, search: Search
) -> SqueezePair:
    """Makes one update: selects from the triplet, ascends the divergence, projects."""
    ops, threat = model.ops, threat_of(search)
    forwards = Triplet(natural, *(forward(model, example, Mode.BATCH) for example in pair))
    logits = Triplet(*(at.logits for at in forwards))
    highest, lowest = roles(ops, logits, y)

    def divergence(*z: Tensor) -> Tensor:
        return gap(ops, lowest(Triplet(*z)), highest(Triplet(*z)))

    value, pullback = ops.vjp(divergence, *logits)
    cotangents = pullback(ops.ones_like(value))  # of the sum over the batch: a signed step ignores scale
    gradients = Triplet(*(at.pullback(g)[0] for at, g in zip(forwards, cotangents, strict=True)))

    def step(choose: Choice) -> Tensor:
        moved = threat.step(ops, choose(Triplet(x, *pair)), choose(gradients), search.step_size)
        return threat.project(ops, moved, x)

    return SqueezePair(adversarial=step(highest), collaborative=step(lowest))
