"""Attacks by name, as the command line and `stcore.evaluate` take them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from stcore.attacks import PRESETS, Attack, preset
from stcore.attacks.minimum_norm import MinimumNorm
from stcore.attacks.presets import MINIMUM_NORM, RAND
from stcore.autoattack import attack as cascades
from stcore.autoattack import versions
from stcore.autoattack.attack import AutoAttack
from stcore.autoattack.nearest import NearestSearch
from stcore.autoattack.versions import Staged
from stcore.base import checks
from stcore.base.registry import Registry, call
from stcore.errors import UsageError
from stcore.evaluation import corruptions
from stcore.evaluation.corruptions import Corruptions
from stcore.evaluation.unions import Union, in_ball, members_of, threat_model

MONITORS = tuple(name for name in PRESETS if name not in ("pgd_rst", "collaborative", "deepfool"))
"""Attacks for selecting an epoch: a single ascent over whole batches, without restarts or many backward passes."""

RESERVED = ("natural", "logits", "predicted", "done")
"""Names with another meaning in an evaluation."""

Evaluated: TypeAlias = Attack | AutoAttack | Union | Corruptions
"""What an evaluation measures an accuracy under."""

Factory: TypeAlias = Callable[[float, str], Attack | AutoAttack]
"""Makes an attack at a radius ε, in units of pixels in [0, 1], in a norm."""


def _accepted(part: Any, name: str) -> Factory:
    """The factory of a plug-in, which is a function or class, or one attack whatever the radius."""

    def factory(epsilon: float, norm: str) -> Attack | AutoAttack:
        attack = part if _is_attack(part) else call("attacks", name, part, epsilon=epsilon, norm=norm)
        if not _is_attack(attack):
            raise UsageError(
                f"attacks: expected {name} to return an attack, with find and noise_laws; received {attack!r:.100}"
            )
        return attack  # type: ignore[no-any-return]

    if not callable(part) and not _is_attack(part):
        raise UsageError(
            f"attacks: expected {name} to be a function (epsilon, norm) → attack; received {part!r:.100}"
        )
    return factory


ATTACKS: Registry[Factory] = Registry(
    "attacks",
    "stcore.attacks",
    {
        **{name: partial(preset, name) for name in PRESETS},
        **{name: partial(cascades.by_name, name) for name in (*cascades.NAMES, *versions.ATTACKS)},  # type: ignore[misc]
        **MINIMUM_NORM,
    },
    _accepted,
    "NORM:RADIUS such as l2:0.5, union:linf:8/255+l2:0.5, corruptions, members of AutoAttack joined by + such as "
    "apgd-ce+square, NAME-rand for a random network, or package.module:make_attack",
)


def check_monitor(name: str) -> None:
    """Raises UsageError unless the attack of this name may select an epoch: one of MONITORS, also in a
    threat model of its own or in a union of these, or a plug-in.
    """
    known = ("natural", *MONITORS)
    if (members := members_of(name)) is not None:
        for member in members:
            check_monitor(member)
    elif (own := threat_model(name)) is not None:
        checks.choice(f"select_by: the attack in {name}", own.attack, MONITORS)
    elif name not in known and (":" in name or ATTACKS.is_plug_in(name)):
        ATTACKS.find(name, "select_by")
    else:
        checks.choice("select_by", name, known)


def attack_of(name: str, epsilon: float, norm: str = "linf") -> Evaluated:
    """What this name stands for. epsilon: in units of pixels in [0, 1]. Raises UsageError for an unknown name."""
    if (corrupted := corruptions.by_name(name)) is not None:
        return corrupted
    if (members := members_of(name)) is not None:
        return Union({member: _of_ball(member, epsilon, norm) for member in members})
    return _of_ball(name, epsilon, norm)


def _of_ball(name: str, epsilon: float, norm: str) -> Attack | AutoAttack:
    """The attack of a name, in the threat model that the name begins with, or in this one."""
    norm, epsilon, name = in_ball(name, norm, epsilon)
    if name.removesuffix(RAND) in PRESETS:
        return preset(name, epsilon, norm)
    joined = cascades.by_name(name, epsilon, norm) if "+" in name or name.endswith(RAND) else None
    found = ATTACKS.find(name)(epsilon, norm) if joined is None else joined
    return _with_radius(found, epsilon, norm)  # type: ignore[return-value]


def _with_radius(attack: Evaluated, epsilon: float, norm: str) -> Evaluated:
    """The attack, with ε as its radius if it is a minimum-norm attack that has none."""
    if not isinstance(attack, MinimumNorm) or attack.epsilon < math.inf:
        return attack
    if attack.norm != norm:
        raise UsageError(
            f"epsilon: expected one for {attack!r}, as the evaluation's is for {norm}; received none. Give it "
            "epsilon=, the radius up to which an example counts"
        )
    return replace(attack, epsilon=epsilon)


def attacks_by_name(
    attacks: Sequence[str | Evaluated] | Mapping[str, Evaluated], epsilon: float, norm: str = "linf"
) -> dict[str, Evaluated]:
    """Attacks by name; a string is the attack of that name at this ε and norm. A union's members precede it.

    A minimum-norm attack without a radius takes ε. Raises UsageError for an unknown name, a string instead of a
    list, a mapping with a reserved name, two attacks of one name, or a minimum-norm attack without a radius in
    another norm.
    """
    found: dict[str, Evaluated] = {}
    for name, attack in _pairs(attacks, epsilon, norm):
        members = attack.members if isinstance(attack, Union) else {}
        for each, one in {**members, name: attack}.items():
            one = _with_radius(one, epsilon, norm)
            if each in RESERVED or (each in members and not _is_attack(one)):
                raise UsageError(
                    f"attacks: expected attacks as members of a union, by names other than {', '.join(RESERVED)}; "
                    f"received {each!r}: {one!r:.100}"
                )
            if repr(found.setdefault(each, one)) != repr(one):
                raise UsageError(f"attacks: expected one attack of each name; received two of the name {each!r}")
    for name in found:
        if longer := [other for other in found if other.startswith(f"{name}/")]:
            raise UsageError(
                f"attacks: expected no name that another one continues by a /; received {name} and {longer[0]}. "
                "Write the fraction as a decimal number"
            )
    return found


def _pairs(
    attacks: Sequence[str | Evaluated] | Mapping[str, Evaluated], epsilon: float, norm: str = "linf"
) -> Iterable[tuple[str, Evaluated]]:
    """The attacks with their names; errors as in `attacks_by_name`."""
    if isinstance(attacks, str):
        raise UsageError(
            f"attacks: expected a list of names or attacks; received {attacks!r}. Write [{attacks!r}]"
        )
    if isinstance(attacks, Mapping):
        for name, attack in attacks.items():
            if not _is_evaluated(attack) or not isinstance(name, str) or "/" in name or name in RESERVED:
                raise UsageError(
                    f"attacks: expected a mapping of names, without / and none of {', '.join(RESERVED)}, to "
                    f"attacks; received {name!r}: {attack!r}"
                )
        return attacks.items()
    if not isinstance(attacks, Iterable):
        raise UsageError(f"attacks: expected a list of names or attacks; received {attacks!r}")
    attacks = list(attacks)
    if strange := [attack for attack in attacks if not (isinstance(attack, str) or _is_evaluated(attack))]:
        raise UsageError(f"attacks: expected names or attacks; received {strange[0]!r} among them")
    return [
        (attack, attack_of(attack, epsilon, norm)) if isinstance(attack, str) else (repr(attack), attack)
        for attack in attacks
    ]


def named_attacks(attacks: Sequence[str | Attack] | Mapping[str, Attack]) -> tuple[str, ...]:
    """The names of attacks as a plan holds them; that of an object is given:NAME, which this process alone knows.

    Raises UsageError for what `attacks_by_name` refuses, for a name that could not stand in a list, and for a
    union or corruptions that are objects.
    """
    objects = attacks.values() if isinstance(attacks, Mapping) else attacks
    if any(isinstance(attack, Union | Corruptions) for attack in objects):
        raise UsageError(
            "attacks: expected unions and corruptions by name, such as union:linf:8/255+l2:0.5 or corruptions; "
            "received an object"
        )
    if isinstance(attacks, Mapping):
        if strange := [name for name, _ in _pairs(attacks, 0.0) if not re.fullmatch(r"[\w.+-]+", name)]:
            raise UsageError(f"attacks: expected names of letters, digits and .+-; received {strange[0]!r}")
        return tuple(ATTACKS.name_of(attack, name) for name, attack in attacks.items())
    _pairs([attack for attack in attacks if not isinstance(attack, str)], 0.0)
    return tuple(one if isinstance(one, str) else ATTACKS.name_of(one) for one in attacks)


def _is_attack(attack: object) -> bool:
    members = isinstance(attack, AutoAttack) or (hasattr(attack, "find") and hasattr(attack, "noise_laws"))
    return members and not isinstance(attack, str | type)


def _is_evaluated(attack: object) -> bool:
    return isinstance(attack, Union | Corruptions) or _is_attack(attack)


def has_own_budget(name: str) -> bool:
    """Whether a name says its own threat model, so that ε and norm of its evaluation say nothing of it."""
    return members_of(name) is not None or threat_model(name) is not None or corruptions.by_name(name) is not None


class Split(NamedTuple):
    """Attacks by how they run: batch by batch, as cascades, on corrupted images; unions follow from the others.

    Minimum-norm attacks are among the cascades.
    """

    by_batch: dict[str, Attack]
    cascades: dict[str, Staged]
    unions: dict[str, Union]
    corruptions: dict[str, Corruptions]

    def check_by_batch(self, option: str, why: str, unions: bool = False) -> dict[str, Attack]:
        """The attacks that run batch by batch. Raises UsageError if there are others; unions: but for unions."""
        if others := {**self.cascades, **({} if unions else self.unions), **self.corruptions}:
            raise UsageError(
                f"{option}: expected attacks that run batch by batch, {why}; received {', '.join(others)}"
            )
        return self.by_batch


def split(attacks: Mapping[str, Evaluated]) -> Split:
    """Separates attacks by how they run."""
    parts = Split({}, {}, {}, {})
    for name, attack in attacks.items():
        if isinstance(attack, AutoAttack):
            parts.cascades[name] = attack
        elif isinstance(attack, MinimumNorm):
            parts.cascades[name] = NearestSearch(attack)
        elif isinstance(attack, Union):
            parts.unions[name] = attack
        elif isinstance(attack, Corruptions):
            parts.corruptions[name] = attack
        else:
            parts.by_batch[name] = attack
    return parts
