"""Ladder of attacks, the cheapest first, in the order that an audit of the network suggests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from stcore.attacks.malt import MALT
from stcore.attacks.square import Square
from stcore.audit import Finding
from stcore.autoattack.versions import Stage, stages

RANDOM = "same answer each time"
SATURATED = frozenset({"gradient of cross-entropy", "another loss"})
MASKED = frozenset(
    {"gradient of DLR", "whole range as budget", "no gradients (Square)", "random noise", "transfer"}
)
"""Names of the audit's checks, by what their warnings mean for the order of the attacks."""
SHORT = 500
"""Queries of Square where gradients mislead; the whole of it is on the ladder too."""


class Rung(NamedTuple):
    """One attack of the ladder.

    cheap: whether new images meet it before those that are left meet the expensive ones.
    """

    name: str
    stage: Stage
    cheap: bool


def doubts(findings: Sequence[Finding]) -> list[str]:
    """The checks that warn."""
    return [finding.check for finding in findings if finding.status == "warn"]


def ladder(norm: str, epsilon: float, classes: int, warned: Collection[str] = ()) -> tuple[Rung, ...]:
    """AutoAttack's fast version, targets by logit, then those attacks of the standard one that it has not made.

    warned: checks of the audit that warn. If the network is random, the ladder is AutoAttack's version for random
    networks, and Square; if gradients mislead, it begins with a short Square; if the cross-entropy does, with the
    targeted attack.
    """
    if RANDOM in warned:
        samples = 20
        square = Stage("square", Square(epsilon, norm), samples=samples)
        chosen = [*stages("rand", norm, epsilon, classes), square]
        return tuple(Rung(stage.name, stage, stage is not square) for stage in chosen)
    quick = [stage for stage in stages("fast", norm, epsilon, classes) if not isinstance(stage.attack, MALT)]
    fast = [Rung(f"fast {stage.name}", stage, True) for stage in quick]
    if MASKED & set(warned):
        fast.insert(0, Rung("short square", Stage("square", Square(epsilon, norm, queries=SHORT)), True))
    elif SATURATED & set(warned):
        fast.reverse()
    standard = stages("standard", norm, epsilon, classes)
    made = [rung.stage for rung in fast]
    return (*fast, *(Rung(stage.name, stage, False) for stage in standard if stage not in made))
