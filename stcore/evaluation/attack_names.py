"""Attacks by name, as the command line and `stcore.evaluate` take them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

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

MONITORS = tuple(name for name in PRESETS if name not in ("pgd_rst", "collaborative", "deepfool"))
"""Attacks for selecting an epoch: a single ascent over whole batches, without restarts or many backward passes."""

RESERVED = ("natural", "logits", "predicted", "done")
"""Names with another meaning in an evaluation."""

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
    "members of AutoAttack joined by + such as apgd-ce+square, NAME-rand for a random network, or "
    "package.module:make_attack",
)


def check_monitor(name: str) -> None:
    """Raises UsageError unless the attack of this name may select an epoch: one of MONITORS, or a plug-in."""
    known = ("natural", *MONITORS)
    if name not in known and (":" in name or ATTACKS.is_plug_in(name)):
        ATTACKS.find(name, "select_by")
    else:
        checks.choice("select_by", name, known)


def attack_of(name: str, epsilon: float, norm: str = "linf") -> Attack | AutoAttack:
    """The attack of this name. epsilon: in units of pixels in [0, 1]. Raises UsageError for an unknown name."""
    if name.removesuffix(RAND) in PRESETS:
        return preset(name, epsilon, norm)
    joined = cascades.by_name(name, epsilon, norm) if "+" in name or name.endswith(RAND) else None
    return _at(ATTACKS.find(name)(epsilon, norm), epsilon, norm) if joined is None else joined


def attacks_by_name(
    attacks: Sequence[str | Attack | AutoAttack] | Mapping[str, Attack | AutoAttack],
    epsilon: float,
    norm: str = "linf",
) -> dict[str, Attack | AutoAttack]:
    """Attacks by name; a string is the attack of that name at this ε and norm.

    A minimum-norm attack without a radius takes ε. Raises UsageError for an unknown name, a string instead of a
    list, a mapping with a reserved name, or a minimum-norm attack without a radius in another norm.
    """
    if isinstance(attacks, Mapping):
        return {name: _at(attack, epsilon, norm) for name, attack in _checked(attacks).items()}
    return {
        attack if isinstance(attack, str) else repr(attack): (
            attack_of(attack, epsilon, norm) if isinstance(attack, str) else _at(attack, epsilon, norm)
        )
        for attack in _checked(attacks)
    }


def named_attacks(attacks: Sequence[str | Attack] | Mapping[str, Attack]) -> tuple[str, ...]:
    """The names of attacks as a plan holds them; that of an object is given:NAME, which this process alone knows.

    Raises UsageError for what `attacks_by_name` refuses, and for a name that could not stand in a list.
    """
    if isinstance(attacks, Mapping):
        if strange := [name for name in _checked(attacks) if not re.fullmatch(r"[\w.+-]+", name)]:
            raise UsageError(f"attacks: expected names of letters, digits and .+-; received {strange[0]!r}")
        return tuple(ATTACKS.name_of(attack, name) for name, attack in attacks.items())
    return tuple(one if isinstance(one, str) else ATTACKS.name_of(one) for one in _checked(attacks))


def _checked(attacks: Any) -> Any:
    """The list or mapping of attacks. Raises UsageError for anything else, and for a reserved name."""
    if isinstance(attacks, str):
        raise UsageError(
            f"attacks: expected a list of names or attacks; received {attacks!r}. Write [{attacks!r}]"
        )
    if isinstance(attacks, Mapping):
        for name, attack in attacks.items():
            if not _is_attack(attack) or not isinstance(name, str) or "/" in name or name in RESERVED:
                raise UsageError(
                    f"attacks: expected a mapping of names, without / and none of {', '.join(RESERVED)}, to "
                    f"attacks; received {name!r}: {attack!r}"
                )
        return dict(attacks)
    if not isinstance(attacks, Iterable):
        raise UsageError(f"attacks: expected a list of names or attacks; received {attacks!r}")
    attacks = list(attacks)
    if strange := [attack for attack in attacks if not (isinstance(attack, str) or _is_attack(attack))]:
        raise UsageError(f"attacks: expected names or attacks; received {strange[0]!r} among them")
    return attacks


def _at(attack: Attack | AutoAttack, epsilon: float, norm: str) -> Attack | AutoAttack:
    """The attack, with ε as its radius if it is a minimum-norm attack that has none."""
    if not isinstance(attack, MinimumNorm) or attack.epsilon < math.inf:
        return attack
    if attack.norm != norm:
        raise UsageError(
            f"epsilon: expected one for {attack!r}, as the evaluation's is for {norm}; received none. Give it "
            "epsilon=, the radius up to which an example counts"
        )
    return replace(attack, epsilon=epsilon)


def _is_attack(attack: object) -> bool:
    members = isinstance(attack, AutoAttack) or (hasattr(attack, "find") and hasattr(attack, "noise_laws"))
    return members and not isinstance(attack, str | type)


def split_cascades(
    attacks: Mapping[str, Attack | AutoAttack],
) -> tuple[dict[str, Attack], dict[str, Staged]]:
    """Separates the attacks that run batch by batch from the cascades, among which are minimum-norm attacks."""
    by_batch: dict[str, Attack] = {}
    staged: dict[str, Staged] = {}
    for name, attack in attacks.items():
        if isinstance(attack, MinimumNorm):
            staged[name] = NearestSearch(attack)
        elif isinstance(attack, AutoAttack):
            staged[name] = attack
        else:
            by_batch[name] = attack
    return by_batch, staged
