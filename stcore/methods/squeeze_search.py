"""The inner loop of Algorithm 1: K times select from the triplet {x, x', x''}, climb the divergence, project."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from stcore.core.search import Forward, Search, forward, threat_of
from stcore.methods.triplet import Choice, Triplet, roles
from stcore.protocols import Mode, Network, Ops, Tensor

Gap: TypeAlias = Callable[[Ops, Tensor, Tensor], Tensor]
"""Collaborative and adversarial logits (B, C) → how far apart they are (B,)."""


class SqueezePair(NamedTuple):
    """The two neighbours of a batch: native tensors shaped like x."""

    adversarial: Tensor
    collaborative: Tensor


def ascend(
    model: Network, x: Tensor, y: Tensor, pair: SqueezePair, gap: Gap, search: Search, steps: int
) -> SqueezePair:
    """The pair after `steps` updates, under batch statistics that write nothing.

    The weights are fixed: x is forwarded once and its pullback reused.
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
    """One pass of the inner loop: select from the triplet, climb the divergence, project."""
    ops, threat = model.ops, threat_of(search)
    forwards = Triplet(natural, *(forward(model, one, Mode.BATCH) for one in pair))
    logits = Triplet(*(one.logits for one in forwards))
    highest, lowest = roles(ops, logits, y)

    def divergence(*z: Tensor) -> Tensor:
        return gap(ops, lowest(Triplet(*z)), highest(Triplet(*z)))

    value, pullback = ops.vjp(divergence, *logits)
    cotangents = pullback(ops.ones_like(value))  # of the sum over the batch: a sign knows no scale
    gradients = Triplet(*(one.pullback(g)[0] for one, g in zip(forwards, cotangents, strict=True)))

    def step(choose: Choice) -> Tensor:
        moved = threat.step(ops, choose(Triplet(x, *pair)), choose(gradients), search.step_size)
        return threat.project(ops, moved, x)

    return SqueezePair(adversarial=step(highest), collaborative=step(lowest))
