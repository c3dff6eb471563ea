"""Display names of methods, attacks, data sets, networks, norms and radii."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stcore.evaluation.unions import members_of, threat_model


class Name(NamedTuple):
    """short: as the paper's tables print it.   long: as a sentence says it."""

    short: str
    long: str


METHODS = {
    "standard": Name("Normal", "standard training"),
    "at": Name("AT", "adversarial training (AT)"),
    "trades": Name("TRADES", "TRADES"),
    "mart": Name("MART", "MART"),
    "st": Name("ST", "squeeze training (ST)"),
    "collaborative": Name("Collaborative (Eq. 5)", "training on collaborative examples (Eq. 5)"),
    "at2": Name("AT†", "AT with two examples (AT†)"),
    "trades2": Name("TRADES†", "TRADES with two examples (TRADES†)"),
    "mart2": Name("MART†", "MART with two examples (MART†)"),
    "gairat": Name("GAIRAT", "GAIRAT"),
    "gair-rst": Name("GAIR-RST", "GAIR-RST"),
    "bat": Name("BAT", "bridged adversarial training (BAT)"),
    "e-at": Name("E-AT", "adversarial training in several norms (E-AT)"),
    "fast-st": Name("Fast ST", "single-step squeeze training (fast ST)"),
    "n-fgsm": Name("N-FGSM", "N-FGSM"),
    "fgsm-rs": Name("FGSM-RS", "FGSM with a random start (FGSM-RS)"),
    "fgsm-consistency": Name("FGSM + JS", "FGSM with a consistency term (FGSM + JS)"),
}
ATTACKS = {
    "natural": Name("Natural", "natural"),
    "fgsm": Name("FGSM", "FGSM"),
    "pgd20": Name("PGD-20", "PGD-20"),
    "pgd100": Name("PGD-100", "PGD-100"),
    "cw100": Name("C&W", "C&W-100"),
    "autoattack": Name("AA", "AutoAttack"),
    "autoattack-malt": Name("AA (MALT)", "AutoAttack (targets in MALT's order)"),
    "autoattack-fast": Name("AA (fast)", "AutoAttack (fast)"),
    "pgd_trades": Name("PGD_TRADES", "PGD_TRADES"),
    "pgd_rst": Name("PGD_RST", "PGD_RST"),
    "ifgsm": Name("I-FGSM", "I-FGSM"),
    "mifgsm": Name("MI-FGSM", "MI-FGSM"),
    "apgd20": Name("APGD-20", "APGD-20"),
    "deepfool": Name("DeepFool", "DeepFool"),
    "ddn": Name("DDN", "DDN"),
    "fmn": Name("FMN", "FMN"),
    "sigma-zero": Name("σ-zero", "σ-zero"),
    "pma": Name("PMA", "PMA"),
}
DIVERGENCES = {
    "js": "JS divergence",
    "squared_l2": "squared l2",
    "symmetric_kl": "symmetric KL",
    "kl": "KL",
    "improved_kl": "improved KL",
    "gkl": "GKL",
}
"""In the order of Fig. 6, then ours."""
GUIDANCE = {"adr": "ADR", "distillation": "distillation", "rebat": "ReBAT", "logits": "teacher's logits"}
DATA = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN"}
NORMS = {"linf": "l∞", "l2": "l2", "l1": "l1", "l0": "l0"}


def method(settings: Mapping[str, Any]) -> str:
    """The method's short name with its additions: ST+AWP, TRADES+extra data. An unknown name stays as it is."""
    additions = [("extra_data", "extra data"), ("awp", "AWP"), ("rwp", "RWP")]
    present = [label for name, label in additions if settings.get(name) is not None]
    present += [GUIDANCE[settings["guidance"]]] if settings.get("teacher") is not None else []
    name = settings["method"]
    return "+".join([METHODS[name].short if name in METHODS else name, *present])


def method_in_words(name: str) -> str:
    """The method's long name: squeeze training (ST). An unknown name is returned as it is."""
    return METHODS[name].long if name in METHODS else name


def attack(name: str) -> str:
    """The attack's short name, with a suffix such as " (subset 100)" kept: AA (subset 100).

    In a threat model of its own AA (ε = 0.5 in l2); of a union union of ε = 8/255 in l∞ and ε = 0.5 in l2 (AA).
    """
    known, space, suffix = name.partition(" ")
    return f"{_qualified(known, lambda one: ATTACKS[one].short if one in ATTACKS else one)}{space}{suffix}"


def attack_in_words(name: str) -> str:
    """The attack's long name: AutoAttack, or AutoAttack (ε = 0.5 in l2). An unknown name is returned as it is."""
    return _qualified(name, lambda one: ATTACKS[one].long if one in ATTACKS else one)


def _qualified(name: str, say: Callable[[str], str]) -> str:
    """The name of an attack that `say` says, with its threat models if the name holds some."""
    if (members := members_of(name)) is not None:
        models = [threat_model(member) for member in members]
        attacks = {model.attack for model in models if model is not None}
        if len(attacks) == 1:
            balls = [ball(model.epsilon, model.norm) for model in models if model is not None]
            return f"union of {', '.join(balls[:-1])} and {balls[-1]} ({say(*attacks)})"
        return f"union of {', '.join(_qualified(member, say) for member in members)}"
    if (model := threat_model(name)) is not None:
        return f"{say(model.attack)} ({ball(model.epsilon, model.norm)})"
    return say(name)


def ball(epsilon: float, norm_name: str) -> str:
    """ε = 8/255 in l∞."""
    return f"ε = {radius(epsilon)} in {norm(norm_name)}"


def attacked(name: str, epsilon: float, norm_name: str) -> str:
    """The attack with its budget: PGD-20 (l∞, ε = 8/255)."""
    return f"{attack(name)} ({norm(norm_name)}, ε = {radius(epsilon)})"


def divergence(name: str) -> str:
    """The divergence's name as figures print it. An unknown name is returned as it is."""
    return DIVERGENCES.get(name, name)


def data(name: str) -> str:
    """The published data set's name, or the name of the folder or file."""
    kind, _, path = name.partition(":")
    return DATA.get(kind, Path(path).name or kind)


def model(name: str) -> str:
    """The network's name as papers write it; an unknown name is returned as it is."""
    return {"resnet18": "ResNet-18", "preact-resnet18": "PreActResNet-18"}.get(
        name, name.upper() if name.startswith("wrn-") else name
    )


def norm(name: str) -> str:
    """l∞, l2, l1 or l0."""
    return NORMS[name]


def radius(value: float) -> str:
    """8/255 for a whole multiple of 1/255 up to 32; otherwise a decimal: 0.2."""
    parts = value * 255
    return f"{parts:.0f}/255" if parts < 33 and math.isclose(parts, round(parts), rel_tol=1e-5) else f"{value:.4g}"
