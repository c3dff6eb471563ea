"""Unions of threat models: an image withstands a union if it withstands every member.

A threat model is written NORM:RADIUS or NORM:RADIUS:ATTACK, by default with AutoAttack; a union, union: and its
members joined by +, such as union:linf:8/255+l2:0.5:autoattack-fast+l1:12.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from stcore.attacks import Attack
from stcore.autoattack.attack import AutoAttack
from stcore.core.threat import radius_of
from stcore.errors import UsageError
from stcore.protocols import Array

NORMS = ("linf", "l2", "l1")
PREFIX = "union:"
STANDARD, FAST = "autoattack", "autoattack-fast"
_MEMBER = re.compile(rf"\+(?=(?:{'|'.join(NORMS)}):)")  # ATTACK may hold a + itself


@dataclass(frozen=True, repr=False)
class Union:
    """Several attacks, each in its own threat model; an image withstands the union if it withstands all of them.

    members: at least two attacks by name. Each runs on all images, so that each has an accuracy of its own.
    Raises UsageError for fewer.
    """

    members: Mapping[str, Attack | AutoAttack]

    def __post_init__(self) -> None:
        if not isinstance(self.members, Mapping) or len(self.members) < 2:
            raise UsageError(
                f"union: expected at least two attacks by name, such as linf:8/255 and l2:0.5; received "
                f"{self.members!r:.100}"
            )

    def __repr__(self) -> str:
        return f"Union({', '.join(self.members)})"

    def predicted(self, found: Mapping[str, Array], labels: Array) -> Array:
        """The class (N,) predicted under the first member that fools the network; the label if none does.

        found: the classes (N,) predicted under each attack, by name.   labels: (N,).
        """
        return joined([found[name] for name in self.members], labels)


def joined(predicted: Sequence[Array], labels: Array) -> Array:
    """Of several predictions (N,) for each image the first that is wrong, or the label (N,)."""
    classes = np.stack(predicted)
    first_wrong = (classes != labels).argmax(axis=0)
    chosen: Array = classes[first_wrong, np.arange(len(labels))]
    return chosen


class ThreatModel(NamedTuple):
    """An attack's name with a norm and a radius ε, in units of pixels in [0, 1]."""

    norm: str
    epsilon: float
    attack: str


def threat_model(name: str) -> ThreatModel | None:
    """The threat model that a name such as l2:0.5 writes; None for any other name.

    Raises UsageError for a radius that cannot be read or is out of range.
    """
    norm, colon, rest = name.partition(":")
    if norm not in NORMS or not colon:
        return None
    radius, _, attack = rest.partition(":")
    return ThreatModel(norm, radius_of("attacks", name, norm, radius), attack or STANDARD)


def in_ball(name: str, norm: str, epsilon: float) -> ThreatModel:
    """The threat model that a name writes, or else the attack of this name with this norm and radius.

    Raises UsageError as `threat_model` does.
    """
    return threat_model(name) or ThreatModel(norm, epsilon, name)


def name_of(attack: str, norm: str, epsilon: float) -> str:
    """The exact name of an attack in a threat model: linf:8/255, or l2:0.5:pgd20 for another than AutoAttack."""
    short, parts = f"{epsilon:g}", round(epsilon * 255)
    radius = short if float(short) == epsilon else f"{parts}/255" if parts / 255 == epsilon else repr(epsilon)
    return f"{norm}:{radius}" + ("" if attack == STANDARD else f":{attack}")


def union_name(members: Sequence[str]) -> str:
    """The name of the union of these threat models."""
    return PREFIX + "+".join(members)


def members_of(name: str) -> list[str] | None:
    """The names of a union's threat models; None for any other name. Raises UsageError if one is not one."""
    if not name.startswith(PREFIX):
        return None
    members = _MEMBER.split(name.removeprefix(PREFIX))
    if strange := [member for member in members if threat_model(member) is None]:
        raise UsageError(
            f"attacks: expected {PREFIX}NORM:RADIUS+NORM:RADIUS, each NORM one of {', '.join(NORMS)}, such as "
            f"{PREFIX}linf:8/255+l2:0.5; received {strange[0]!r} in {name!r}"
        )
    if len(set(members)) < len(members):
        raise UsageError(f"attacks: expected each threat model of a union once; received {name}")
    return members


def without_members(names: Iterable[str]) -> list[str]:
    """The names without those of threat models that a union among them has: it brings its members."""
    asked = list(names)
    members = {member for name in asked for member in members_of(name) or ()}
    return [name for name in asked if name not in members]


def with_fast(name: str) -> str:
    """The name with AutoAttack replaced by its fast version, also within a threat model or a union."""
    if name == STANDARD:
        return FAST
    members = members_of(name)
    if members is not None:
        return union_name([with_fast(member) for member in members])
    threat = threat_model(name)
    if threat is None or threat.attack != STANDARD:
        return name
    norm, radius = name.split(":")[:2]
    return f"{norm}:{radius}:{FAST}"
